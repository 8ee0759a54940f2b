//! libvirt's daemon in session mode, as the user that QEMU has in KubeVirt's pods.

use crate::pod::run;
use anyhow::ensure;
use holdfast_cluster::until;
use holdfast_guest::Process;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// What `cargo xtask setup` installs for these tests.
pub(crate) const PROGRAMS: [&str; 3] = [
    DAEMON,
    VIRSH,
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
];
const DAEMON: &str = "/usr/sbin/libvirtd";
const VIRSH: &str = "/usr/bin/virsh";
/// KubeVirt's `qemu`.
pub(crate) const USER: u32 = 107;
const PATIENCE: Duration = Duration::from_secs(60);
/// What KubeVirt sets, too: no second daemon for logs, no relabelling.
const CONFIG: &str = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n";

pub(crate) struct Libvirt {
    _daemon: Process,
    folder: TempDir,
}

impl Libvirt {
    pub(crate) async fn start() -> anyhow::Result<Libvirt> {
        // Short: the monitor's socket lies deep below.
        let folder = tempfile::Builder::new().prefix("lv").tempdir_in("/tmp")?;
        for part in ["", "config", "config/libvirt", "run", "cache"] {
            let path = folder.path().join(part);
            fs::create_dir_all(&path)?;
            chown(&path, Some(USER), Some(USER))?;
        }
        fs::write(folder.path().join("config/libvirt/qemu.conf"), CONFIG)?;
        let mut daemon = at_home(folder.path(), DAEMON);
        let libvirt = Libvirt {
            _daemon: Process::start("libvirtd", &mut daemon)?,
            folder,
        };
        until("libvirtd answers", PATIENCE, || async {
            let answer = libvirt.virsh(&["version"]);
            Ok(answer.map_err(|error| error.to_string()))
        })
        .await?;
        Ok(libvirt)
    }

    /// A folder that QEMU may read and write.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `virsh` with these words.
    pub(crate) fn virsh(&self, words: &[&str]) -> anyhow::Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.virsh_command(words).output()?;
        let said = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "virsh {}: {}", words[0], said.trim());
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    pub(crate) fn virsh_command(&self, words: &[&str]) -> Command {
        let mut command = at_home(self.folder.path(), VIRSH);
        command.args(["--connect", "qemu:///session"]).args(words);
        command
    }
}

/// libvirt looks its own user up by number. Only this mount namespace sees the entry.
pub(crate) fn know_the_user() -> anyhow::Result<()> {
    if run("getent", &["passwd", &USER.to_string()]).is_ok() {
        return Ok(());
    }
    let user = format!("qemu:x:{USER}:{USER}::/:/bin/false\n");
    let group = format!("qemu:x:{USER}:\n");
    for (file, line) in [("/etc/passwd", user), ("/etc/group", group)] {
        let copy = tempfile::NamedTempFile::new()?;
        fs::write(&copy, fs::read_to_string(file)? + &line)?;
        fs::set_permissions(&copy, fs::metadata(file)?.permissions())?;
        let copy = copy.path().display().to_string();
        run("mount", &["--bind", &copy, file])?;
    }
    Ok(())
}

/// A program as that user, without a single capability.
pub(crate) fn as_user(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    command.args([&user, &group, "--clear-groups", program]);
    command.env("LC_ALL", "C");
    command
}

fn at_home(folder: &Path, program: &str) -> Command {
    let mut command = as_user(program);
    for (name, part) in [
        ("HOME", ""),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CACHE_HOME", "cache"),
    ] {
        command.env(name, folder.join(part));
    }
    command
}
