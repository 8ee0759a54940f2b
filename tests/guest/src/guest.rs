//! A virtual machine under test: boots, runs commands, reboots, and dies with its owner.

mod drives;

pub use drives::DriveSpec;

use crate::{Kit, Process, Qmp, Transcript, init};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The machine to boot.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Its disks; the first is /dev/vda.
    pub disks: Vec<DiskSpec>,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB, shared with whoever serves the disks.
    pub memory_mib: u32,
    /// NVMe drives.
    pub drives: Vec<DriveSpec>,
    /// Programs of this machine that the guest has in /sbin, besides those of every guest.
    pub programs: Vec<PathBuf>,
}

/// A disk that somebody serves on a vhost-user socket.
#[derive(Clone, Debug)]
pub struct DiskSpec {
    /// The server's socket.
    pub socket: PathBuf,
    /// Queues that the guest may use.
    pub queues: u16,
}

/// What a command in the guest said, standard output and standard error together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Its words.
    pub text: String,
}

/// A running machine.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    agent: Agent,
    console: Transcript,
    /// Up to where the console has been looked through.
    seen: usize,
    qmp: Qmp,
    _folder: TempDir,
}

/// The shell in a guest, over the first port of its virtio console.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    said: Transcript,
    /// Up to where the conversation has been read.
    read: usize,
    commands: u64,
}

/// A boot takes three seconds under TCG, and many times that on a machine that is busy otherwise.
const BOOT_WITHIN: Duration = Duration::from_secs(180);
const COMMAND_WITHIN: Duration = Duration::from_secs(180);
/// Linux tests its timer at boot and panics if the tick is late, which on a busy machine it is.
const KERNEL_OPTIONS: &str = "console=ttyS0 loglevel=6 panic=0 no_timer_check";
/// Between two tries of QEMU to reach a server that is away.
const RECONNECT_MS: u32 = 10;

impl GuestSpec {
    /// A machine with one CPU and these disks.
    pub fn with_disks(disks: Vec<DiskSpec>) -> GuestSpec {
        GuestSpec {
            disks,
            cpus: 1,
            memory_mib: 256,
            drives: Vec::new(),
            programs: Vec::new(),
        }
    }
}

impl Guest {
    /// Boots and returns when commands can be run.
    ///
    /// # Errors
    /// If something is not installed, or the guest does not come up; with its last words.
    pub fn boot(spec: &GuestSpec) -> anyhow::Result<Guest> {
        let (mut kit, folder) = (Kit::find()?, tempfile::tempdir()?);
        kit.programs.extend_from_slice(&spec.programs);
        init::write(&kit, &folder.path().join("initramfs"))?;
        let agent = UnixListener::bind(folder.path().join("agent"))?;
        let control = UnixListener::bind(folder.path().join("control"))?;
        let mut process = Process::start("QEMU", &mut command(&kit, spec, folder.path()))?;
        let by = Instant::now() + BOOT_WITHIN;
        let console = Transcript::of("guest's console", process.stdout()?);
        let agent = Agent::new(process.accept(&agent, by)?)?;
        let qmp = Qmp::new(process.accept(&control, by)?)?;
        let mut guest = Guest {
            process,
            agent,
            console,
            seen: 0,
            qmp,
            _folder: folder,
        };
        guest.wait_until_ready(by)?;
        Ok(guest)
    }

    /// Runs a shell command of one line and waits for its end.
    ///
    /// # Errors
    /// If the guest does not answer in time. A command that fails is an [`Output`], not an error.
    pub fn run(&mut self, command: &str) -> anyhow::Result<Output> {
        let number = self.start(command)?;
        let by = Instant::now() + COMMAND_WITHIN;
        let answer = self.agent.answer(number, by);
        answer.with_context(|| format!("guest did not finish `{command}`{}", self.last_words()))
    }

    /// Runs a command that must succeed and returns its words.
    ///
    /// # Errors
    /// Also if its exit code is not 0.
    pub fn check(&mut self, command: &str) -> anyhow::Result<String> {
        let Output { code, text } = self.run(command)?;
        if code != 0 {
            bail!("`{command}` failed in the guest with code {code}:\n{text}");
        }
        Ok(text)
    }

    /// Reboots from inside, as a user would; QEMU stays. Returns when commands can be run again.
    ///
    /// # Errors
    /// If the guest does not come back.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        self.start("reboot -f")?;
        self.wait_until_ready(Instant::now() + BOOT_WITHIN)
    }

    /// Resets the machine as a power button would, whatever it is doing. Returns when commands can be run again.
    ///
    /// # Errors
    /// If the guest does not come back.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        self.qmp.execute("system_reset", json!({}))?;
        self.wait_until_ready(Instant::now() + BOOT_WITHIN)
    }

    /// Waits until the kernel says `pattern` on the console; a second wait looks behind the first match.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_for(&mut self, pattern: &str, deadline: Instant) -> anyhow::Result<()> {
        self.seen = self.console.wait_for(self.seen, pattern, deadline)?.end;
        Ok(())
    }

    /// Takes a disk away from the running guest; disks count from 0. Returns when the guest has let go of it.
    ///
    /// # Errors
    /// If the guest keeps it.
    pub fn unplug(&mut self, disk: usize) -> anyhow::Result<()> {
        let id = format!("disk{disk}");
        self.qmp.execute("device_del", json!({ "id": id }))?;
        let by = Instant::now() + COMMAND_WITHIN;
        let gone = |data: &Value| data["device"] == *id;
        self.qmp.wait_for_event("DEVICE_DELETED", gone, by)
    }

    /// Puts a disk that was unplugged back into its port.
    ///
    /// # Errors
    /// If QEMU refuses it.
    pub fn plug(&mut self, disk: usize, queues: u16) -> anyhow::Result<()> {
        let device = json!({
            "driver": "vhost-user-blk-pci",
            "id": format!("disk{disk}"),
            "bus": format!("port{disk}"),
            "chardev": format!("server{disk}"),
            "num-queues": queues,
        });
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Everything the kernel has said.
    pub fn console(&self) -> &Transcript {
        &self.console
    }

    /// Asks QEMU to end, as a management layer would.
    ///
    /// # Errors
    /// If it refuses.
    pub fn quit(mut self) -> anyhow::Result<()> {
        self.qmp.execute("quit", json!({})).map(drop)
    }

    fn start(&mut self, command: &str) -> anyhow::Result<u64> {
        let sent = self.agent.start(command);
        sent.with_context(|| format!("guest cannot be told `{command}`{}", self.last_words()))
    }

    fn wait_until_ready(&mut self, by: Instant) -> anyhow::Result<()> {
        let ready = self.agent.wait_until_ready(by);
        ready.with_context(|| format!("guest did not boot{}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let (console, qemu) = (self.console.tail(), self.process.log().tail());
        format!("\n-- console\n{console}\n-- QEMU\n{qemu}\n--")
    }
}

impl Agent {
    /// Talks over the host's end of the port.
    ///
    /// # Errors
    /// If the stream cannot be shared.
    pub fn new(stream: UnixStream) -> anyhow::Result<Agent> {
        let said = Transcript::of("guest's agent", stream.try_clone()?);
        Ok(Agent {
            stream,
            said,
            read: 0,
            commands: 0,
        })
    }

    /// Waits until the guest has booted.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_until_ready(&mut self, by: Instant) -> anyhow::Result<()> {
        self.wait_for("@ready\n", by).map(drop)
    }

    /// Reboots from inside, as a user would. Returns when commands can be run again.
    ///
    /// # Errors
    /// If the guest does not come back by the deadline.
    pub fn reboot(&mut self, by: Instant) -> anyhow::Result<()> {
        self.start("reboot -f")?;
        self.wait_until_ready(by)
    }

    /// Runs a shell command of one line that must succeed, and returns its words.
    ///
    /// # Errors
    /// If the guest does not answer in time, or the exit code is not 0.
    pub fn check(&mut self, command: &str) -> anyhow::Result<String> {
        let number = self.start(command)?;
        let Output { code, text } = self.answer(number, Instant::now() + COMMAND_WITHIN)?;
        anyhow::ensure!(
            code == 0,
            "`{command}` failed in the guest with code {code}:\n{text}"
        );
        Ok(text)
    }

    fn start(&mut self, command: &str) -> anyhow::Result<u64> {
        anyhow::ensure!(!command.contains('\n'), "a command is one line");
        self.commands += 1;
        writeln!(self.stream, "{} {command}", self.commands)?;
        Ok(self.commands)
    }

    fn answer(&mut self, number: u64, by: Instant) -> anyhow::Result<Output> {
        let text = self.wait_for(&format!("\n@done {number} "), by)?;
        let code = self.wait_for("\n", by)?.parse()?;
        let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        Ok(Output { code, text })
    }

    /// Waits for `pattern` and returns what stood before it.
    fn wait_for(&mut self, pattern: &str, by: Instant) -> anyhow::Result<String> {
        let found = self.said.wait_for(self.read, pattern, by)?;
        let before = self.said.between(self.read, found.start);
        self.read = found.end;
        Ok(before)
    }
}

/// The machine as KubeVirt builds it: q35, each disk behind a port of its own, shared memory.
fn command(kit: &Kit, spec: &GuestSpec, folder: &Path) -> Command {
    let mut command = Command::new(&kit.qemu);
    let memory = spec.memory_mib;
    let path = |name: &str| folder.join(name).display().to_string();
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-accel", accelerator()])
        .args([
            "-machine",
            "q35,memory-backend=ram",
            "-smp",
            &spec.cpus.to_string(),
        ])
        .args(["-m", &format!("{memory}M"), "-object"])
        .arg(format!(
            "memory-backend-memfd,id=ram,size={memory}M,share=on"
        ))
        .arg("-kernel")
        .arg(&kit.kernel)
        .args(["-initrd", &path("initramfs")])
        .args(["-append", KERNEL_OPTIONS]);
    for name in ["agent", "control"] {
        let socket = path(name);
        command.args(["-chardev", &format!("socket,id={name},path={socket}")]);
    }
    // A socket takes few single bytes before the serial port drops some; a pipe takes all.
    command
        .args([
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ])
        .args([
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtserialport,chardev=agent",
        ])
        .args(["-mon", "chardev=control,mode=control"])
        .stdout(Stdio::piped());
    for (number, disk) in spec.disks.iter().enumerate() {
        add_disk(&mut command, kit, disk, number);
    }
    for (number, drive) in spec.drives.iter().enumerate() {
        drives::add(&mut command, drive, number);
    }
    command
}

fn add_disk(command: &mut Command, kit: &Kit, disk: &DiskSpec, number: usize) {
    let mut server = format!("socket,id=server{number},path={}", disk.socket.display());
    // QEMU before 9.2 knows whole seconds only.
    let _ = if kit.reconnects_in_milliseconds() {
        write!(server, ",reconnect-ms={RECONNECT_MS}")
    } else {
        write!(server, ",reconnect=1")
    };
    let port = format!("pcie-root-port,id=port{number},chassis={number},slot={number}");
    let device = format!(
        "vhost-user-blk-pci,id=disk{number},bus=port{number},chardev=server{number},num-queues={}",
        disk.queues
    );
    command.args(["-chardev", &server, "-device", &port, "-device", &device]);
}

/// KVM only when asked for: inside another virtual machine it may be there and hang.
fn accelerator() -> &'static str {
    match std::env::var("HOLDFAST_KVM") {
        Ok(value) if value == "1" => "kvm",
        _ => "tcg",
    }
}
