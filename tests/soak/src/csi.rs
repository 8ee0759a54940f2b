//! A CSI caller: the life of a volume, each call repeated until it succeeds, across every death of the driver.

use anyhow::bail;
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::controller_client::ControllerClient;
use holdfast_proto::csi::v1::node_client::NodeClient;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Far more than any call needs, dead driver included.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two attempts; the driver may be dead just now.
const RETRY: Duration = Duration::from_millis(2);

/// A call in the life of a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Create,
    Stage,
    Expand,
    Unstage,
    Delete,
}

impl Step {
    const LIFE: [Step; 5] = [
        Step::Create,
        Step::Stage,
        Step::Expand,
        Step::Unstage,
        Step::Delete,
    ];
}

/// Calls one driver.
pub(crate) struct Caller {
    runtime: tokio::runtime::Runtime,
    endpoint: String,
    staging: String,
    channel: Option<Channel>,
}

impl Caller {
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Caller> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Caller {
            runtime,
            endpoint: endpoint(dir),
            staging: dir.join("staging").display().to_string(),
            channel: None,
        })
    }

    /// Repeats the call until it succeeds, as Kubernetes does.
    pub(crate) fn complete(&mut self, step: Step, volume: &str, bytes: i64) -> anyhow::Result<()> {
        let until = Instant::now() + DEADLINE;
        loop {
            let Err(status) = self.call(step, volume, bytes) else {
                return Ok(());
            };
            if !may_be_repeated(&status) || Instant::now() > until {
                bail!("{step:?} of volume {volume:?}: {status}");
            }
            std::thread::sleep(RETRY);
        }
    }

    fn call(&mut self, step: Step, volume: &str, bytes: i64) -> Result<(), Status> {
        let Caller {
            runtime,
            endpoint,
            staging,
            channel,
        } = self;
        runtime.block_on(async {
            if channel.is_none() {
                let connected = holdfast_csi::connect(endpoint).await;
                *channel = Some(connected.map_err(|e| Status::unavailable(e.to_string()))?);
            }
            match channel {
                Some(there) => send(step, volume, (staging, bytes), there.clone()).await,
                None => Err(Status::unavailable("not connected")),
            }
        })
    }
}

/// Volumes that come, grow and go beside the one under load, until told to stop.
pub(crate) struct Lives {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Lives {
    pub(crate) fn begin(mut caller: Caller) -> Lives {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut lives = 0;
            while !told.load(Ordering::Relaxed) {
                let volume = format!("life-{lives}");
                for step in Step::LIFE {
                    let bytes = if matches!(step, Step::Expand) { 4 } else { 2 };
                    caller.complete(step, &volume, bytes << 20)?;
                }
                lives += 1;
            }
            Ok(lives)
        });
        Lives { stop, thread }
    }

    /// How many volumes have lived. The driver must be alive, or the last life never ends.
    pub(crate) fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(lives) => lives,
            Err(_) => bail!("the CSI caller ended by panic"),
        }
    }
}

pub(crate) fn endpoint(dir: &Path) -> String {
    format!("unix://{}", dir.join("csi.sock").display())
}

/// What a broken connection looks like depends on the moment it broke.
fn may_be_repeated(status: &Status) -> bool {
    let kinds = [
        Code::Aborted,
        Code::DeadlineExceeded,
        Code::Unavailable,
        Code::Cancelled,
    ];
    let cut_off = status.code() == Code::Unknown && status.message().contains("transport");
    kinds.contains(&status.code()) || cut_off
}

async fn send(
    step: Step,
    volume: &str,
    (staging, required_bytes): (&str, i64),
    channel: Channel,
) -> Result<(), Status> {
    let volume_id = volume.to_owned();
    let staging_target_path = format!("{staging}/{volume}");
    let capacity_range = Some(csi::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    });
    let mut controller = ControllerClient::new(channel.clone());
    let mut node = NodeClient::new(channel);
    match step {
        Step::Create => {
            let request = csi::CreateVolumeRequest {
                name: volume_id,
                capacity_range,
                volume_capabilities: vec![capability()],
                ..Default::default()
            };
            controller.create_volume(request).await.map(drop)
        }
        Step::Stage => {
            let request = csi::NodeStageVolumeRequest {
                volume_id,
                staging_target_path,
                volume_capability: Some(capability()),
                ..Default::default()
            };
            node.node_stage_volume(request).await.map(drop)
        }
        Step::Expand => {
            let request = csi::ControllerExpandVolumeRequest {
                volume_id,
                capacity_range,
                ..Default::default()
            };
            controller.controller_expand_volume(request).await.map(drop)
        }
        Step::Unstage => {
            let request = csi::NodeUnstageVolumeRequest {
                volume_id,
                staging_target_path,
            };
            node.node_unstage_volume(request).await.map(drop)
        }
        Step::Delete => {
            let request = csi::DeleteVolumeRequest {
                volume_id,
                ..Default::default()
            };
            controller.delete_volume(request).await.map(drop)
        }
    }
}

fn capability() -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}
