//! `holdfast device`: the drives behind the pools of a driver that runs, to be pulled and put back under load.

use crate::answer::Answer;
use crate::call::Caller;
use holdfast_proto::holdfast::v1alpha1 as wire;
use holdfast_proto::holdfast::v1alpha1::DeviceState;
use holdfast_proto::holdfast::v1alpha1::devices_client::DevicesClient;
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;

/// What to do, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    caller: Caller,
    #[command(subcommand)]
    call: Call,
}

#[derive(Debug, clap::Subcommand)]
enum Call {
    /// List the drives: pool, state, path, what to do about it.
    List,
    /// Let go of a pool's drive, so that it can be pulled. Its volumes keep their sockets and wait for it.
    Remove { pool: String },
    /// Take a pool's drive back; its volumes go on.
    Add {
        pool: String,
        /// Where the drive is now, as an absolute path; where it was last if not given.
        #[arg(long)]
        path: Option<String>,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    args.caller
        .call(async |channel| args.call.make(channel).await)
}

impl Call {
    async fn make(self, channel: Channel) -> Result<Answer, Status> {
        let mut client = DevicesClient::new(channel);
        let device = match self {
            Call::List => {
                let listed = client.list(wire::ListRequest {}).await?.into_inner();
                return Ok(list(&listed.devices));
            }
            Call::Remove { pool } => {
                let request = wire::RemoveRequest { pool };
                client.remove(request).await?.into_inner().device
            }
            Call::Add { pool, path } => {
                let path = path.unwrap_or_default();
                let request = wire::AddRequest { pool, path };
                client.add(request).await?.into_inner().device
            }
        };
        let device = device.unwrap_or_default();
        Ok(Answer::new(to_text(&device), to_json(&device)))
    }
}

fn list(devices: &[wire::Device]) -> Answer {
    let lines: Vec<String> = devices.iter().map(to_text).collect();
    let values = devices.iter().map(to_json).collect();
    Answer::new(lines.join("\n"), Value::Array(values))
}

fn to_text(device: &wire::Device) -> String {
    let state = state(device);
    format!(
        "{}\t{state}\t{}\t{}",
        device.pool, device.path, device.message
    )
}

fn to_json(device: &wire::Device) -> Value {
    json!({
        "pool": device.pool,
        "path": device.path,
        "state": state(device),
        "capacityBytes": device.capacity_bytes,
        "allocatedBytes": device.allocated_bytes,
        "message": device.message,
    })
}

fn state(device: &wire::Device) -> &'static str {
    match device.state() {
        DeviceState::Present => "present",
        DeviceState::Removed => "removed",
        DeviceState::Lost => "lost",
        DeviceState::NotOpened => "not-opened",
        DeviceState::Unspecified => "unknown",
    }
}
