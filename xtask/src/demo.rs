//! `cargo xtask demo`: a virtual machine's whole life on two volumes of Holdfast, act by act, each act checked.

mod canary;
mod driver;
mod guest_acts;
mod stage;

use crate::say::Step;
use anyhow::{Context, bail, ensure};
use holdfast_guest::target_folder;
use stage::Stage;
use std::time::{Duration, Instant};

/// Something that happens; tells what came of it, or why it failed.
type Act = fn(&mut Stage) -> anyhow::Result<String>;

const ACTS: &[(&str, Act)] = &[
    ("build holdfast", Stage::build),
    ("start the driver on a pool of 2 GiB", Stage::start_driver),
    ("CSI: create two volumes", Stage::create_volumes),
    ("CSI: stage and publish them", Stage::publish_volumes),
    ("boot a VM on both, two queues each", Stage::boot_guest),
    ("guest: partition, make ext4", Stage::make_file_systems),
    ("guest: write files with checksums", Stage::write_files),
    ("guest: unmount and fsck", Stage::check_file_systems),
    ("guest: reboot and verify", Stage::reboot_and_verify),
    ("CSI: expand a volume in use", Stage::expand_in_use),
    ("guest: use the new space and fsck", Stage::use_new_space),
    ("power off", Stage::power_off),
    ("CSI: unpublish, unstage, delete", Stage::delete_volumes),
    ("space erased and free again", Stage::see_space_return),
    ("stop the driver", Stage::stop_driver),
];

struct Ended {
    name: &'static str,
    outcome: String,
    took: Duration,
}

/// Plays all acts; ends at the first that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo publishes volumes, which mounts; run it as root, as in `sudo -E make demo`"
    );
    crate::setup::guests()?;
    let since = Instant::now();
    let mut stage = Stage::new()?;
    let mut ended = Vec::new();
    let played = play(&mut stage, &mut ended);
    print_table(&ended, since.elapsed());
    if let Err(error) = played {
        let logs = target_folder()?.join("demo-logs");
        stage.keep_logs(&logs).context("cannot keep the logs")?;
        stage.clean_up();
        bail!("{error:#}\nlogs are in {}", logs.display());
    }
    println!("Every check passed.");
    Ok(())
}

fn play(stage: &mut Stage, ended: &mut Vec<Ended>) -> anyhow::Result<()> {
    for (name, act) in ACTS {
        let (step, since) = (Step::begin(*name), Instant::now());
        match act(stage) {
            Ok(outcome) => {
                step.done(&outcome);
                ended.push(Ended {
                    name,
                    outcome,
                    took: since.elapsed(),
                });
            }
            Err(error) => {
                step.failed(&format!("{error:#}"));
                bail!("the act \"{name}\" failed");
            }
        }
    }
    Ok(())
}

fn print_table(ended: &[Ended], total: Duration) {
    println!("\n{:-<100}", "");
    for Ended {
        name,
        outcome,
        took,
    } in ended
    {
        let seconds = took.as_secs_f64();
        println!("{name:<38} {seconds:>6.1} s  {outcome}");
    }
    let (passed, all) = (ended.len(), ACTS.len());
    let total = total.as_secs_f64();
    println!(
        "{:-<100}\n{passed} of {all} acts passed in {total:.0} s",
        ""
    );
}
