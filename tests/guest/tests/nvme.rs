//! Kind `nvme` on a drive that QEMU emulates: the tests of `holdfast-bdev` run inside a guest, while the drive is pulled, or
//! is slow, or the process that uses it is killed.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, ensure};
use holdfast_guest::{DriveSpec, Guest, GuestSpec, kit, target_folder};
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use tempfile::TempDir;

/// A machine with one drive, and the programs.
struct Machine {
    guest: Guest,
    _folder: TempDir,
}

const SERIAL: &str = "PASSED";
const DRIVE_BYTES: u64 = 8 << 20;
/// The kernel names the only drive so.
const RUN: &str = "HOLDFAST_TEST_NVME=/dev/ng0n1";

impl Machine {
    fn boot(writes_per_second: Option<u32>) -> anyhow::Result<Machine> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("drive");
        File::create_new(&image)?.set_len(DRIVE_BYTES)?;
        let guest = Guest::boot(&GuestSpec {
            memory_mib: 1024,
            drives: vec![DriveSpec {
                image,
                serial: SERIAL.to_owned(),
                writes_per_second,
            }],
            programs: programs()?,
            ..GuestSpec::with_disks(Vec::new())
        })?;
        let mut machine = Machine {
            guest,
            _folder: folder,
        };
        machine.run("until [ -c /dev/ng0n1 ] && [ -b /dev/nvme0n1 ]; do usleep 10000; done")?;
        Ok(machine)
    }

    /// One test of `tests/nvme.rs`, in the guest. Its words.
    fn test(&mut self, name: &str) -> anyhow::Result<String> {
        let said = self.run(&format!(
            "{RUN} nvme --ignored --exact {name} --nocapture 2>&1"
        ))?;
        ensure!(said.contains("1 passed"), "there is no test {name}: {said}");
        Ok(said)
    }

    /// Begins one in the background, and waits until it has come so far.
    fn begin(&mut self, name: &str, so_far: &str) -> anyhow::Result<()> {
        self.run(&format!(
            "{{ {RUN} nvme --ignored --exact {name} --nocapture & echo $! >/run/pid; wait $!; echo $? >/run/code; }} \
             >/run/log 2>&1 & until [ -e /run/{so_far} ]; do [ ! -e /run/code ] || {{ cat /run/log; exit 1; }}; usleep 10000; done"
        ))
        .map(drop)
    }

    fn run(&mut self, command: &str) -> anyhow::Result<String> {
        self.guest.check(command)
    }
}

/// The test programs of `holdfast-bdev` that a guest runs, built once.
fn programs() -> anyhow::Result<Vec<PathBuf>> {
    static BUILT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap();
    if built.is_empty() {
        let folder = target_folder()?.join("guest");
        std::fs::create_dir_all(&folder)?;
        for (name, program) in build(["nvme", "conformance"])? {
            // Cargo's name for it ends in a number.
            let copy = folder.join(name);
            std::fs::copy(program, &copy)?;
            built.push(copy);
        }
    }
    Ok(built.clone())
}

fn build<const N: usize>(names: [&str; N]) -> anyhow::Result<Vec<(&str, PathBuf)>> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--package", "holdfast-bdev"])
        .args(names.iter().flat_map(|name| ["--test", name]))
        .args(["--no-run", "--message-format", "json", "--target-dir"])
        .arg(target_folder()?)
        .current_dir(kit::workspace())
        .output()
        .context("cannot run cargo")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tests do not build:\n{words}");
    let lines = String::from_utf8(output.stdout)?;
    let messages = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let messages: Vec<Value> = messages.collect();
    let program = |name| {
        let of_it = messages
            .iter()
            .filter(|message| message["target"]["name"] == name);
        let mut programs = of_it.filter_map(|message| message["executable"].as_str());
        let program = programs.next().map(|program| (name, program.into()));
        program.with_context(|| format!("cargo does not tell where {name} is"))
    };
    names.into_iter().map(program).collect()
}

#[test]
fn drive_by_its_own_commands_answers_as_every_device_does() -> anyhow::Result<()> {
    let mut machine = Machine::boot(None)?;
    machine.run(&format!(
        "{RUN} conformance --test-threads 1 --skip read_only 2>&1"
    ))?;
    for test in [
        "requests_pass_the_block_layer_by_unless_the_drive_cannot_take_them",
        "discard_and_zeroes_leave_their_neighbours_alone",
        "read_only_drive_refuses_every_change",
        "drive_is_free_as_soon_as_its_last_channel_is_gone",
        "controller_reset_under_load_fails_no_request",
    ] {
        machine.test(test)?;
    }
    let said = machine.test("random_reads_cost_this_much_by_either_path")?;
    for line in said.lines().filter(|line| line.contains("MEASURED")) {
        println!("{line}");
    }
    Ok(())
}

#[test]
fn pulled_drive_fails_requests_and_serves_again_when_it_is_back() -> anyhow::Result<()> {
    let mut machine = Machine::boot(None)?;
    machine.begin("pulled_drive_fails_every_request_as_lost", "under-load")?;
    machine.guest.pull_drive(SERIAL)?;
    let said = machine.run(
        "until [ -e /run/code ]; do usleep 10000; done; cat /run/log; [ $(cat /run/code) = 0 ]",
    )?;
    println!("{}", line_with("failed with", &said));
    machine.guest.put_drive_back(SERIAL)?;
    machine.run("until [ -c /dev/ng0n1 ] && [ -b /dev/nvme0n1 ]; do usleep 10000; done")?;
    machine.test("requests_pass_the_block_layer_by_unless_the_drive_cannot_take_them")?;
    Ok(())
}

fn check_that_it_waits(successor: &str) -> anyhow::Result<()> {
    let mut machine = Machine::boot(Some(2))?;
    machine.begin(
        "process_with_writes_under_way_waits_to_be_killed",
        "writing",
    )?;
    machine.run("kill -9 $(cat /run/pid)")?;
    let said = machine.test(successor)?;
    println!("{}", line_with("waited", &said));
    Ok(())
}

fn line_with<'a>(word: &str, said: &'a str) -> &'a str {
    said.lines()
        .find(|line| line.contains(word))
        .unwrap_or(said)
}

#[test]
fn successor_of_a_killed_process_waits_for_its_commands() -> anyhow::Result<()> {
    check_that_it_waits("successor_waits_for_commands_of_a_killed_process")
}

#[test]
fn successor_of_another_kind_waits_for_them_too() -> anyhow::Result<()> {
    check_that_it_waits("successor_on_the_block_path_waits_for_commands_of_a_killed_process")
}
