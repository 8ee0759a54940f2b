//! A machine from KubeVirt's description to a shell in the guest.

use crate::libvirt::{Libvirt, USER};
use crate::rewriter::Rewriter;
use anyhow::{Context, ensure};
use holdfast_cluster::until;
use holdfast_guest::{Agent, Kit, write_initramfs};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The machine's name for its volume.
pub(crate) const VOLUME: &str = "data";
const NAME: &str = "default_vm";
const BOOT_WITHIN: Duration = Duration::from_secs(180);

/// The deadline of a boot that begins now.
pub(crate) fn in_time() -> Instant {
    Instant::now() + BOOT_WITHIN
}

pub(crate) struct Machine<'l> {
    libvirt: &'l Libvirt,
    description: String,
    listener: UnixListener,
    agent: Option<Agent>,
}

/// `virsh start` that has not come back yet.
pub(crate) struct Starting(Child);

impl Starting {
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let output = self.0.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virsh start: {}", said.trim());
        Ok(())
    }
}

impl<'l> Machine<'l> {
    /// Fills in what differs from KubeVirt's: no KVM and so another CPU, no network, a kernel of ours, and a port to the
    /// guest's shell in place of the agent's.
    pub(crate) fn prepare(libvirt: &'l Libvirt, domain: &str) -> anyhow::Result<Machine<'l>> {
        let (kit, folder) = (Kit::find()?, libvirt.folder());
        let (kernel, initramfs) = (folder.join("kernel"), folder.join("initramfs"));
        fs::copy(&kit.kernel, &kernel)?;
        fs::set_permissions(&kernel, fs::Permissions::from_mode(0o444))?;
        write_initramfs(&kit, &initramfs)?;
        let agent = folder.join("agent");
        let _ = fs::remove_file(&agent); // Of a machine before this one.
        let listener = UnixListener::bind(&agent)?;
        listener.set_nonblocking(true)?;
        chown(&agent, Some(USER), Some(USER))?;
        let description = domain
            .replace("@KERNEL@", &kernel.display().to_string())
            .replace("@INITRAMFS@", &initramfs.display().to_string())
            .replace("@AGENT@", &agent.display().to_string())
            .replace("@CONSOLE@", &folder.join("console").display().to_string());
        Ok(Machine {
            libvirt,
            description,
            listener,
            agent: None,
        })
    }

    /// The description before anybody rewrote it.
    pub(crate) fn described(&self) -> &str {
        &self.description
    }

    /// Twice, as virt-launcher does: what libvirt reads back from the first definition is rewritten again, with the socket
    /// and the memory's settings lost on the way.
    pub(crate) async fn define_as_kubevirt_does(&self, by: &Rewriter) -> anyhow::Result<()> {
        let first = by.rewrite(&self.description).await?;
        self.define(&first)?;
        let between = stripped(&self.libvirt.virsh(&["dumpxml", "--inactive", NAME])?);
        ensure!(
            !between.contains("v.sock") && between.contains("<source/>"),
            "nothing was stripped from {between}"
        );
        let refused = self.define(&between);
        ensure!(refused.is_err(), "libvirt takes a disk without its socket");
        let second = by.rewrite(&between).await?;
        let third = by.rewrite(&second).await?;
        ensure!(third == second, "a third call changed something: {third}");
        self.define(&second)
    }

    pub(crate) fn define(&self, xml: &str) -> anyhow::Result<()> {
        let file = self.libvirt.folder().join("domain.xml");
        fs::write(&file, xml)?;
        let file = file.display().to_string();
        self.libvirt.virsh(&["define", &file]).map(drop)
    }

    pub(crate) fn start(&self) -> anyhow::Result<()> {
        self.libvirt.virsh(&["start", NAME]).map(drop)
    }

    pub(crate) fn start_in_background(&self) -> anyhow::Result<Starting> {
        let mut command = self.libvirt.virsh_command(&["start", NAME]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Starting(command.spawn()?))
    }

    /// libvirt's word for it.
    pub(crate) fn state(&self) -> anyhow::Result<String> {
        Ok(self.libvirt.virsh(&["domstate", NAME])?.trim().to_owned())
    }

    pub(crate) async fn until_state(&self, wanted: &str) -> anyhow::Result<()> {
        until(&format!("the machine is {wanted}"), BOOT_WITHIN, || async {
            let state = self.state()?;
            Ok(if state == wanted { Ok(()) } else { Err(state) })
        })
        .await
    }

    /// Waits until the guest has booted.
    pub(crate) async fn boot(&mut self) -> anyhow::Result<&mut Agent> {
        let listener = &self.listener;
        let stream = until("QEMU connects", BOOT_WITHIN, || async {
            Ok(listener.accept().map_err(|error| error.to_string()))
        });
        let (stream, _) = stream.await?;
        stream.set_nonblocking(false)?;
        let agent = self.agent.insert(Agent::new(stream)?);
        let console = self.libvirt.folder().join("console");
        let last_words = || fs::read_to_string(&console).unwrap_or_default();
        agent.wait_until_ready(in_time()).with_context(last_words)?;
        Ok(agent)
    }

    /// The guest that has booted.
    pub(crate) fn guest(&mut self) -> anyhow::Result<&mut Agent> {
        self.agent.as_mut().context("it has not booted")
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // Each fails only if there is nothing to end.
        let _ = self.libvirt.virsh(&["destroy", NAME]);
        let _ = self.libvirt.virsh(&["undefine", NAME]);
    }
}

/// What is left of a definition when it went through the types of KubeVirt, which know no socket as a disk's source and take
/// no memory settings back.
fn stripped(xml: &str) -> String {
    let text = without(xml, "<memoryBacking>", "</memoryBacking>", "");
    let source = "<source type='unix' path='/var/run/kubevirt-private";
    without(&text, source, "</source>", "<source/>")
}

fn without(text: &str, start: &str, end: &str, instead: &str) -> String {
    let cut = text.split_once(start).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some(format!("{before}{instead}{after}"))
    });
    cut.unwrap_or_else(|| text.to_owned())
}
