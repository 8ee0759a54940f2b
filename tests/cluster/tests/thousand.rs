//! A thousand volumes on three nodes: how long they take, and what they cost in memory. It judges nothing but that all are there.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use futures::future::LocalBoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_cluster::runner::Stage;
use holdfast_cluster::{Lab, Plane};
use holdfast_proto::csi::v1::controller_client::ControllerClient;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use holdfast_proto::csi::v1::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, ListVolumesRequest, VolumeCapability,
};
use std::time::Instant;
use tonic::transport::Channel;

holdfast_cluster::tests!(on Large:; ignored: thousand_volumes_are_made_listed_and_found_again);

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUMES: usize = 1_000;
const VOLUME_BYTES: u64 = 1 << 20;
const POOL_BYTES: u64 = 512 << 20;
/// As many as the provisioner's own workers would.
const AT_A_TIME: usize = 20;

struct Large(Lab);

impl Stage for Large {
    const MOUNTS: bool = true;

    fn set() -> LocalBoxFuture<'static, anyhow::Result<Large>> {
        Box::pin(async { Ok(Large(Lab::start(&NODES, POOL_BYTES).await?)) })
    }

    fn plane(&mut self) -> Option<&mut Plane> {
        Some(&mut self.0.plane)
    }
}

async fn thousand_volumes_are_made_listed_and_found_again(
    Large(lab): &mut Large,
) -> anyhow::Result<()> {
    memory(lab, "empty")?;
    let since = Instant::now();
    let ids: Vec<String> = stream::iter(0..VOLUMES)
        .map(|number| create(lab, number))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    println!(
        "{VOLUMES} volumes made in {:.1?}, {AT_A_TIME} at a time",
        since.elapsed()
    );
    list(lab, "listed").await?;
    memory(lab, "full")?;

    let since = Instant::now();
    lab.controller().kill()?;
    lab.restart_controller().await?;
    until_controller_answers(lab).await?;
    println!("controller killed and back in {:.1?}", since.elapsed());
    for name in NODES {
        let since = Instant::now();
        lab.node(name)?.agent().kill()?;
        lab.restart_agent(name).await?;
        println!(
            "agent of {name} killed and ready again in {:.1?}",
            since.elapsed()
        );
    }
    list(lab, "listed after that").await?;
    memory(lab, "restarted")?;

    let since = Instant::now();
    let deleted = stream::iter(ids)
        .map(|id| delete(lab, id))
        .buffer_unordered(AT_A_TIME);
    deleted.try_collect::<()>().await?;
    println!("deleted in {:.1?}", since.elapsed());
    lab.until_empty().await?;
    println!("erased and free after {:.1?}", since.elapsed());
    Ok(())
}

async fn client(lab: &Lab) -> anyhow::Result<ControllerClient<Channel>> {
    let channel = holdfast_csi::connect(&lab.controller_endpoint()).await?;
    Ok(ControllerClient::new(channel))
}

async fn create(lab: &Lab, number: usize) -> anyhow::Result<String> {
    let request = CreateVolumeRequest {
        name: format!("pvc-{number:04}"),
        capacity_range: Some(CapacityRange {
            required_bytes: VOLUME_BYTES.try_into()?,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }],
        ..CreateVolumeRequest::default()
    };
    let answer = client(lab).await?.create_volume(request).await?;
    Ok(answer
        .into_inner()
        .volume
        .context("an answer has a volume")?
        .volume_id)
}

async fn delete(lab: &Lab, volume_id: String) -> anyhow::Result<()> {
    let request = DeleteVolumeRequest {
        volume_id,
        ..DeleteVolumeRequest::default()
    };
    client(lab).await?.delete_volume(request).await?;
    Ok(())
}

async fn list(lab: &Lab, what: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    let request = ListVolumesRequest::default();
    let found = client(lab).await?.list_volumes(request).await?.into_inner();
    let count = found.entries.len();
    println!("{count} volumes {what} in {:.0?}", since.elapsed());
    ensure!(count == VOLUMES, "{count} volumes are listed");
    Ok(())
}

async fn until_controller_answers(lab: &Lab) -> anyhow::Result<()> {
    let patience = holdfast_cluster::lab::PATIENCE;
    holdfast_cluster::until("the controller lists volumes", patience, || async {
        Ok(list(lab, "listed by the new controller")
            .await
            .map_err(|why| format!("{why:#}")))
    })
    .await
}

fn memory(lab: &mut Lab, when: &str) -> anyhow::Result<()> {
    println!(
        "{when}: controller {} MiB",
        resident_mib(lab.controller().holdfast().id())?
    );
    for name in NODES {
        let agent = lab.node(name)?.agent().id();
        println!("{when}: agent of {name} {} MiB", resident_mib(agent)?);
    }
    Ok(())
}

fn resident_mib(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("a process has memory")?.trim().parse::<u64>()? / 1024)
}
