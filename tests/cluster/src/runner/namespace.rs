//! A mount namespace for the whole program: what is mounted in it goes with it.

use std::process::{Command, ExitCode};

/// Set in the program that runs inside.
const INSIDE: &str = "HOLDFAST_TEST_NAMESPACE";

/// Whether this process may make one.
pub(super) fn possible() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Whether this process is inside.
pub(super) fn entered() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again inside, and ends as it does.
pub(super) fn enter() -> ExitCode {
    let inner = std::env::current_exe().and_then(|this| {
        Command::new("unshare")
            .arg("--mount")
            .arg(this)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status()
    });
    match inner {
        Ok(status) => ExitCode::from(u8::from(!status.success())),
        Err(why) => {
            println!("cannot enter a mount namespace: {why}");
            ExitCode::FAILURE
        }
    }
}
