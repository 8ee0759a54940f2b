//! What happens between a device's answer and the caller's: parts are joined, answers are held back until
//! their time, and the rest waits to be handed out.

use crate::slab::{Key, Slab};
use crate::{Completion, IoStatus, Token};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Marks a token as the driver's own.
const CONTINUATION: u64 = 1 << 63;
/// Answers that come in one turn, mostly: lists of them need not grow while requests are served.
pub(super) const DONE_MOSTLY: usize = 256;
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

enum Node {
    Join {
        parent: Token,
        left: u32,
        worst: IoStatus,
        _keep: Vec<Box<[libc::iovec]>>,
    },
    Delay {
        parent: Token,
        due: Instant,
    },
}

/// An answer held back. Ordered by time, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    due: Instant,
    arrival: u64,
}

pub(super) struct Core {
    done: Vec<Completion>,
    nodes: Slab<Node>,
    timers: BinaryHeap<Reverse<(Timer, u64)>>,
    held: Slab<Completion>,
    arrivals: u64,
    pub(super) stale: u64,
}

impl Core {
    pub(super) fn new() -> Core {
        Core {
            done: Vec::with_capacity(DONE_MOSTLY),
            nodes: Slab::new(),
            timers: BinaryHeap::new(),
            held: Slab::new(),
            arrivals: 0,
            stale: 0,
        }
    }

    /// Follows the token through its continuations; the loop ends because each step consumes a node or a part.
    pub(super) fn complete(&mut self, mut token: Token, mut status: IoStatus) {
        while token.0 & CONTINUATION != 0 {
            match self.step(token, status) {
                Some(next) => (token, status) = (next.token, next.status),
                None => return,
            }
        }
        self.done.push(Completion { token, status });
    }

    /// Whether this is what was completed last, and well.
    #[inline]
    pub(super) fn has_just_done(&self, token: Token) -> bool {
        let status = IoStatus::Ok;
        self.done.last() == Some(&Completion { token, status })
    }

    pub(super) fn join(&mut self, parent: Token, parts: u32) -> Token {
        self.join_keeping(parent, parts, Vec::new())
    }

    /// As [`Core::join`]; the iovec arrays live until the last part has completed.
    pub(super) fn join_keeping(
        &mut self,
        parent: Token,
        parts: u32,
        keep: Vec<Box<[libc::iovec]>>,
    ) -> Token {
        assert!(parts > 0, "a request is joined from at least one part");
        self.name(Node::Join {
            parent,
            left: parts,
            worst: IoStatus::Ok,
            _keep: keep,
        })
    }

    pub(super) fn delay(&mut self, parent: Token, by: Duration) -> Token {
        let now = Instant::now();
        // What the clock cannot express is never.
        let due = now.checked_add(by).unwrap_or(now + CENTURY);
        self.name(Node::Delay { parent, due })
    }

    /// Lets every answer go whose time has come.
    pub(super) fn expire(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        while self
            .timers
            .peek()
            .is_some_and(|Reverse((timer, _))| timer.due <= now)
        {
            let Some(Reverse((_, key))) = self.timers.pop() else {
                return;
            };
            if let Some(held) = self.held.remove(Key::unpack(key)) {
                self.complete(held.token, held.status);
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((timer, _))| timer.due)
    }

    pub(super) fn hand_out(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
    }

    pub(super) fn pending(&self) -> usize {
        self.nodes.len() + self.held.len() + self.done.len()
    }

    fn name(&mut self, node: Node) -> Token {
        Token(CONTINUATION | self.nodes.insert(node).pack())
    }

    fn step(&mut self, token: Token, status: IoStatus) -> Option<Completion> {
        let key = Key::unpack(token.0);
        let next = match self.nodes.get_mut(key) {
            None => {
                self.stale += 1;
                tracing::error!(
                    ?token,
                    ?status,
                    "Dropped a completion of a request that had completed before"
                );
                return None;
            }
            Some(Node::Join {
                parent,
                left,
                worst,
                ..
            }) => {
                *left -= 1;
                *worst = worst.worst(status);
                if *left > 0 {
                    return None;
                }
                Some(Completion {
                    token: *parent,
                    status: *worst,
                })
            }
            Some(Node::Delay { parent, due }) => {
                let (answer, due) = (
                    Completion {
                        token: *parent,
                        status,
                    },
                    *due,
                );
                if Instant::now() >= due {
                    Some(answer)
                } else {
                    self.hold(answer, due)
                }
            }
        };
        self.nodes.remove(key);
        next
    }

    fn hold(&mut self, answer: Completion, due: Instant) -> Option<Completion> {
        let key = self.held.insert(answer).pack();
        self.arrivals += 1;
        self.timers.push(Reverse((
            Timer {
                due,
                arrival: self.arrivals,
            },
            key,
        )));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(core: &mut Core) -> Vec<(u64, IoStatus)> {
        let mut done = Vec::new();
        core.hand_out(&mut done);
        done.into_iter().map(|c| (c.token.0, c.status)).collect()
    }

    #[test]
    fn joined_parts_complete_the_parent_once_with_the_worst_status() {
        let mut core = Core::new();
        let part = core.join(Token(5), 3);
        core.complete(part, IoStatus::Failed(libc::EIO));
        core.complete(part, IoStatus::Ok);
        assert_eq!(answers(&mut core), []);
        core.complete(part, IoStatus::Unsupported);
        assert_eq!(answers(&mut core), [(5, IoStatus::Failed(libc::EIO))]);
        assert_eq!((core.pending(), core.stale), (0, 0));
    }

    #[test]
    fn one_completion_too_many_is_dropped_and_counted() {
        let mut core = Core::new();
        let part = core.join(Token(5), 1);
        core.complete(part, IoStatus::Ok);
        core.complete(part, IoStatus::Failed(libc::EIO));
        assert_eq!(answers(&mut core), [(5, IoStatus::Ok)]);
        assert_eq!(core.stale, 1);
    }

    #[test]
    fn delayed_part_of_a_join_holds_the_parent_back() {
        let mut core = Core::new();
        let part = core.join(Token(1), 2);
        let held = core.delay(part, Duration::from_secs(3600));
        core.complete(part, IoStatus::Ok);
        core.complete(held, IoStatus::Ok);
        core.expire();
        assert_eq!(answers(&mut core), []);
        assert!(core.next_due().is_some());
        assert_eq!(core.pending(), 2, "the join and the held answer");
    }

    #[test]
    fn answers_with_the_same_delay_keep_their_order() {
        let mut core = Core::new();
        for id in 0..10 {
            let held = core.delay(Token(id), Duration::ZERO);
            core.complete(held, IoStatus::Ok);
        }
        core.expire();
        assert_eq!(
            answers(&mut core).iter().map(|a| a.0).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
    }
}
