//! Inside the machine: front ends that play the disks of virtual machines, and the way to give them orders.
//!
//! Each disk is a thread with a verified load that never pauses. Orders come as lines on a socket: `WHO ORDER [COUNT]`.

mod disk;

use disk::{Disk, Order};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

const SOCKET: &str = "/run/players";
/// A disk of this name sends what Linux never does; others send what it does.
const ODD: &str = "odd";

/// An order, and where to say how it went.
type Errand = (Order, Sender<Result<String, String>>);

/// `play NAME=SOCKET...` serves orders for ever; `tell WHO ORDER [COUNT]` gives one, and fails as it does.
pub(crate) fn main(words: &[&str]) -> ExitCode {
    match words {
        ["play", disks @ ..] => play(disks),
        ["tell", order @ ..] => tell(&order.join(" ")),
        _ => panic!("play or tell, not {words:?}"),
    }
}

fn play(disks: &[&str]) -> ExitCode {
    let players: Vec<_> = (1..)
        .zip(disks)
        .map(|(number, disk)| {
            let (name, socket) = disk.split_once('=').unwrap();
            let disk = Disk::connect(number, socket.as_ref(), name.contains(ODD));
            let (errands, inbox) = mpsc::channel();
            thread::spawn(move || serve(disk, &inbox));
            (name.to_owned(), errands)
        })
        .collect();
    for stream in UnixListener::bind(SOCKET).unwrap().incoming() {
        // One at a time: orders of the next scene wait for this one.
        answer(&stream.unwrap(), &players);
    }
    ExitCode::FAILURE
}

fn serve(mut disk: Disk, inbox: &Receiver<Errand>) {
    loop {
        while let Ok((order, reply)) = inbox.try_recv() {
            let _ = reply.send(disk.follow(order).map_err(|error| error.to_string()));
        }
        disk.breathe();
    }
}

fn answer(mut stream: &UnixStream, players: &[(String, Sender<Errand>)]) {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let order = Order::parse(&words[1..]);
    let waiting: Vec<_> = players
        .iter()
        .filter(|(name, _)| name.contains(words[0]))
        .map(|(name, errands)| {
            let (reply, replied) = mpsc::channel();
            errands.send((order, reply)).unwrap();
            (name, replied)
        })
        .collect();
    assert!(!waiting.is_empty(), "nobody is called {}", words[0]);
    for (name, replied) in waiting {
        let text = match replied.recv() {
            Ok(Ok(text)) => format!("{name}: {text}"),
            Ok(Err(error)) => format!("FAILED {name}: {error}"),
            Err(_) => format!("FAILED {name}: its thread has ended"),
        };
        writeln!(stream, "{text}").unwrap();
    }
}

fn tell(order: &str) -> ExitCode {
    let mut stream = UnixStream::connect(SOCKET).unwrap();
    writeln!(stream, "{order}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    print!("{said}");
    ExitCode::from(u8::from(said.is_empty() || said.contains("FAILED ")))
}
