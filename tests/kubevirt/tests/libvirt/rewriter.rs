//! Who puts the machine's disk on its socket: the hook sidecar, called as virt-launcher calls it, or the chart's Plugin,
//! evaluated as virt-launcher evaluates it.

use crate::machine::VOLUME;
use anyhow::{Context, ensure};
use holdfast_guest::{Process, holdfast, kit, target_folder};
use holdfast_proto::kubevirt::hooks::v1alpha3::{
    OnDefineDomainParams, callbacks_client::CallbacksClient,
};
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(60);
const SPEC: &str = "charts/holdfast/files/kubevirt-plugin-spec.yaml";

pub(crate) enum Rewriter {
    /// `holdfast kubevirt-hook`, and where its socket is.
    Hook { _process: Process, folder: TempDir },
    /// The program that evaluates the Plugin.
    Plugin { program: PathBuf },
}

impl Rewriter {
    pub(crate) fn hook() -> anyhow::Result<Rewriter> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(holdfast()?);
        let socket = folder.path().join("holdfast.sock");
        command.args(["kubevirt-hook", "--socket"]).arg(socket);
        let process = Process::start("holdfast kubevirt-hook", &mut command)?;
        let log = process.log();
        log.wait_for(0, "Listening", Instant::now() + PATIENCE)?;
        Ok(Rewriter::Hook {
            _process: process,
            folder,
        })
    }

    pub(crate) fn plugin() -> anyhow::Result<Rewriter> {
        let program = target_folder()?.join("kubevirt-plugin-apply");
        let built = Command::new("go")
            .arg("build")
            .arg("-o")
            .arg(&program)
            .arg("./cmd/apply")
            .current_dir(kit::workspace().join("tests/kubevirt-cel"))
            .output()?;
        let said = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "go build: {said}");
        Ok(Rewriter::Plugin { program })
    }

    /// The domain that virt-launcher then gives to libvirt.
    pub(crate) async fn rewrite(&self, domain: &str) -> anyhow::Result<String> {
        match self {
            Rewriter::Hook { folder, .. } => {
                call(folder.path().join("holdfast.sock"), domain).await
            }
            Rewriter::Plugin { program } => apply(program.clone(), domain),
        }
    }
}

async fn call(socket: PathBuf, domain: &str) -> anyhow::Result<String> {
    let vmi = format!(
        r#"{{"metadata":{{"name":"vm","annotations":{{"holdfast.dev/volumes":"{VOLUME}"}}}}}}"#
    );
    let params = OnDefineDomainParams {
        domain_xml: domain.into(),
        vmi: vmi.into(),
    };
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://hook");
    let mut client = CallbacksClient::new(endpoint.connect_with_connector(dial).await?);
    let answer = client.on_define_domain(params).await?.into_inner();
    Ok(String::from_utf8(answer.domain_xml)?)
}

fn apply(program: PathBuf, domain: &str) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .arg(kit::workspace().join(SPEC))
        .args([VOLUME, VOLUME])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    stdin.write_all(domain.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}
