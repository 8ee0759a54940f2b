//! `cargo xtask image`: the container image, one static binary on an empty base, by whichever builder is here.

use crate::say::Step;
use crate::setup;
use anyhow::{Context, ensure};
use holdfast_guest::kit::{target, workspace};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The compiler's name for a binary that needs no library of its machine.
const STATIC: &str = "x86_64-unknown-linux-musl";

/// What may build it, the first one wins; none needs a network, since the base is empty.
const BUILDERS: [&str; 3] = ["docker", "podman", "buildah"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image's name and tag, with the registry that the nodes reach.
    #[arg(long, default_value = concat!("localhost/holdfast:", env!("CARGO_PKG_VERSION")))]
    tag: String,
}

/// Builds the binary, then the image.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let context = binary()?;
    let builder = match builder() {
        Some(name) => name,
        None => setup::buildah()?,
    };
    let step = Step::begin(format!("build the image with {builder}"));
    let file = workspace().join("deploy/image/Dockerfile");
    let mut command = Command::new(builder);
    command.args(["build", "--tag", &args.tag, "--file"]);
    succeed(command.arg(file).arg(&context), builder)?;
    step.done(&format!("`{builder} push {}` sends it", args.tag));
    Ok(())
}

/// The binary alone in a folder, which is all that a builder has to read.
fn binary() -> anyhow::Result<PathBuf> {
    setup::musl(STATIC)?;
    let step = Step::begin("build the static binary");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--package", "holdfast"]);
    cargo.args(["--target", STATIC]).current_dir(workspace());
    succeed(&mut cargo, "cargo build")?;
    let built = target().join(STATIC).join("release/holdfast");
    let context = target().join("image");
    fs::create_dir_all(&context)?;
    let bare = context.join("holdfast");
    // Names of functions stay, for what a crash tells; lines would be four fifths of the image.
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).args([&bare, &built]);
    succeed(&mut strip, "strip")?;
    let bytes = fs::metadata(&bare)?.len();
    step.done(&format!("{} MiB", bytes >> 20));
    Ok(context)
}

fn builder() -> Option<&'static str> {
    BUILDERS.into_iter().find(|name| works(name))
}

/// A builder may be installed and of no use, as docker is without its daemon.
fn works(name: &str) -> bool {
    let asked = Command::new(name).arg("info").output();
    asked.is_ok_and(|answer| answer.status.success())
}

fn succeed(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {what}"))?;
    ensure!(status.success(), "{what} failed; its reason is above");
    Ok(())
}
