//! The crash that Holdfast exists for: a drive is pulled under load, the virtual machines on it reboot while it is gone, it
//! comes back under another name, they reboot again. Nothing may end, nothing may fail, nothing may be lost, and the machines'
//! other disks must not notice. In some rounds the driver is killed on top of it.
//!
//! All of that happens inside a QEMU guest with a Debian kernel and two NVMe drives, for the drive has to vanish as drives do.
//! The machines' other disks are splits of a device in memory: a file on tmpfs, so that what is on them outlives the process
//! that serves them, and is verified after a kill as well. One more is on the second drive.
//! The "virtual machines" are front ends in there (see [`players`]): a guest's guest would take minutes to boot.
//! It is played twice: with drives used by the block path, and by their own commands (`--nvme-passthrough`).
//! `HOLDFAST_ORIGIN_ROUNDS` asks for more rounds than the usual few.
#![allow(clippy::unwrap_used)]

mod players;
mod stage;

use stage::{Kill, Stage, Way};
use std::process::ExitCode;

/// Name, the way to the drives, and how many rounds are usual.
type Test = (&'static str, Way, usize);

const TESTS: &[Test] = &[
    (
        "drive_pulled_under_load_costs_rebooting_machines_no_error_and_no_write",
        Way::Block,
        4,
    ),
    (
        "drive_that_is_given_nvme_commands_may_be_pulled_as_well",
        Way::Commands,
        1,
    ),
];
const ROUNDS: &str = "HOLDFAST_ORIGIN_ROUNDS";
/// The first argument of this program where it runs inside the guest.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [INSIDE, rest @ ..] = &words[..] {
        return players::main(rest);
    }
    let tests = chosen(&words);
    if words.contains(&"--list") {
        tests.iter().for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let failed = tests.iter().filter(|test| !passes(test)).count();
    let (passed, filtered) = (tests.len() - failed, TESTS.len() - tests.len());
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}

/// The tests whose names contain one of the words, or all if there are none; none of them is an ignored one.
fn chosen(words: &[&str]) -> Vec<&'static Test> {
    let filters: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let named = |(name, ..): &&Test| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(*filter))
    };
    match words.contains(&"--ignored") {
        true => Vec::new(),
        false => TESTS.iter().filter(named).collect(),
    }
}

fn passes((name, way, usual): &Test) -> bool {
    let played = play(*way, *usual);
    match &played {
        Ok(()) => println!("test {name} ... ok"),
        Err(error) => println!("test {name} ... FAILED\n{error:?}"),
    }
    played.is_ok()
}

fn play(way: Way, usual: usize) -> anyhow::Result<()> {
    let rounds = std::env::var(ROUNDS).map_or(usual, |rounds| rounds.parse().expect(ROUNDS));
    let kills = [Some(Kill::Loaded), Some(Kill::Gone), Some(Kill::Back), None];
    let mut stage = Stage::set(way)?;
    for (round, kill) in (1..=rounds).zip(kills.into_iter().cycle()) {
        let played = stage.round(kill);
        let seen = played.map_err(|error| stage.explain(error, round))?;
        println!("round {round} of {rounds}, killed {kill:?}: {seen}");
    }
    println!("{}", stage.sum()?);
    Ok(())
}
