//! The mailbox: a sleeping owner never misses a message, and none is lost when the owner goes.

use crate::SCHEDULES;
use crate::mailbox::Mailbox;
use shuttle::sync::Arc;
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::{check_random, thread};

#[test]
fn sleeping_owner_hears_every_message_once_and_in_order() {
    check_random(hear_all, SCHEDULES);
}

fn hear_all() {
    let mailbox = Arc::new(Mailbox::new().unwrap());
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (0..3).for_each(|turn| mailbox.send((sender, turn)).unwrap()))
        })
        .collect();
    let mut heard = [Vec::new(), Vec::new()];
    while heard.iter().map(Vec::len).sum::<usize>() < 6 {
        // A message whose ring was missed leaves everybody asleep, which the scheduler reports.
        mailbox.bell().wait();
        for (sender, turn) in mailbox.take() {
            heard[sender].push(turn);
        }
    }
    assert_eq!(heard, [[0, 1, 2], [0, 1, 2]]);
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
}

#[test]
fn nobody_waits_for_an_owner_that_goes() {
    check_random(owner_goes, SCHEDULES);
}

fn owner_goes() {
    let mailbox = Arc::new(Mailbox::<Sender<u32>>::new().unwrap());
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let (reply, answer) = channel();
                // Given back, dropped, or answered: in each case the wait ends.
                let given_back = mailbox.send(reply).is_err();
                let answer = answer.recv();
                assert!(!(given_back && answer.is_ok()));
            })
        })
        .collect();
    mailbox.bell().wait();
    for reply in mailbox.take() {
        reply.send(1).unwrap();
    }
    mailbox.close();
    askers.into_iter().for_each(|asker| asker.join().unwrap());
}
