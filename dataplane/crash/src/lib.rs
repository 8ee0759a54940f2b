//! Named places at which a test may kill this process, as `kill -9` would between two stores. In a release build a place
//! is nothing at all: no load, no branch, no name in the binary.
//!
//! `HOLDFAST_CRASH_POINT=publish.used-idx:40` ends a debug build when it passes that place for the 40th time; without a
//! number, the first time. Places are passed at full speed by any thread, so the count is of the process.
//!
//! ```
//! holdfast_crash::crash_point!("volume.grown");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where and when the process ends; read once.
pub const VARIABLE: &str = "HOLDFAST_CRASH_POINT";

/// Marks a place. The name is a literal, so that the list of names can be found by searching for them.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        if cfg!(debug_assertions) {
            $crate::passed($name);
        }
    };
}

/// A place, and how often it is still to be passed before the end.
#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

/// Called by [`crash_point!`] only.
#[doc(hidden)]
pub fn passed(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text)));
    if let Some(armed) = armed
        && is_due(armed, name)
    {
        die();
    }
}

fn is_due(armed: &Armed, name: &str) -> bool {
    armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
}

fn parse(text: &str) -> Armed {
    let (name, count) = match text.rsplit_once(':') {
        Some((name, count)) => (name, count.parse().unwrap_or(1)),
        None => (text, 1),
    };
    Armed {
        name: name.to_owned(),
        left: AtomicU64::new(count),
    }
}

/// No destructor, no flush, no farewell: what the kernel does with a killed process, and nothing else.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_due_once_at_its_count_and_never_for_another_name() {
        let armed = parse("stage.next:3");
        let due = [
            "stage.next",
            "stage",
            "stage.next",
            "stage.next",
            "stage.next",
        ];
        let due = due.map(|name| is_due(&armed, name));
        assert_eq!(due, [false, false, false, true, false]);
        assert!(is_due(&parse("stop.ended"), "stop.ended"));
    }
}
