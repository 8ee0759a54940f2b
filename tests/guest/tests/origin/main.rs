//! The crash that Holdfast exists for: a drive is pulled under load, the virtual machines on it reboot while it is gone, it
//! comes back under another name, they reboot again. Nothing may end, nothing may fail, nothing may be lost, and the machines'
//! other disks must not notice. In some rounds the driver is killed on top of it.
//!
//! All of that happens inside a QEMU guest with a Debian kernel and two NVMe drives, for the drive has to vanish as drives do.
//! The machines' other disks are splits of a device in memory: a file on tmpfs, so that what is on them outlives the process
//! that serves them, and is verified after a kill as well. One more is on the second drive.
//! The "virtual machines" are front ends in there (see [`players`]): a guest's guest would take minutes to boot.
//! `HOLDFAST_ORIGIN_ROUNDS` asks for more rounds than the usual few.
#![allow(clippy::unwrap_used)]

mod players;
mod stage;

use stage::{Kill, Stage};
use std::process::ExitCode;

const TEST: &str = "drive_pulled_under_load_costs_rebooting_machines_no_error_and_no_write";
const ROUNDS: &str = "HOLDFAST_ORIGIN_ROUNDS";
/// The first argument of this program where it runs inside the guest.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [INSIDE, rest @ ..] = &words[..] {
        return players::main(rest);
    }
    if words.contains(&"--list") {
        println!("{TEST}: test");
        return ExitCode::SUCCESS;
    }
    let mut filters = words.iter().filter(|word| !word.starts_with('-'));
    let none = filters.clone().next().is_none();
    if words.contains(&"--ignored") || !none && !filters.any(|word| TEST.contains(word)) {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return ExitCode::SUCCESS;
    }
    let outcome = play();
    let (word, passed) = match &outcome {
        Ok(()) => ("ok", 1),
        Err(error) => {
            println!("{TEST}: {error:?}");
            ("FAILED", 0)
        }
    };
    let failed = 1 - passed;
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(failed)
}

fn play() -> anyhow::Result<()> {
    let rounds = std::env::var(ROUNDS).map_or(4, |rounds| rounds.parse().expect(ROUNDS));
    let kills = [None, Some(Kill::Loaded), Some(Kill::Gone), Some(Kill::Back)];
    let mut stage = Stage::set()?;
    for (round, kill) in (1..=rounds).zip(kills.into_iter().cycle()) {
        let played = stage.round(kill);
        let seen = played.map_err(|error| stage.explain(error, round))?;
        println!("round {round} of {rounds}, killed {kill:?}: {seen}");
    }
    println!("{}", stage.sum()?);
    Ok(())
}
