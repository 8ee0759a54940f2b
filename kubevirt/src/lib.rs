//! How a plain KubeVirt virtual machine gets its disk from a vhost-user socket, on a KubeVirt that nobody changed.
//!
//! KubeVirt knows no such disk. It gives a claim with a file system to libvirt as the file `disk.img`; libvirt's description
//! of the machine is then rewritten, by a `Plugin` object (KubeVirt 1.9) or by the hook sidecar of this room (older ones):
//! the disk becomes `<disk type='vhostuser'>` on the socket that lies beside that file. Which volumes are ours is written on
//! the VirtualMachineInstance, in one annotation: it names volumes, never paths. A webhook gives the sidecar to the machines
//! that need it, so that nobody has to name it.
//!
//! ```
//! use holdfast_kubevirt::{Volumes, rewrite};
//! let domain = "<domain><vcpu>2</vcpu><devices><disk type='file' device='disk'><target dev='vda' bus='virtio'/>\
//!     <source file='/var/run/kubevirt-private/vmi-disks/data/disk.img'/><alias name='ua-data'/></disk></devices></domain>";
//! let rewritten = rewrite(domain, &Volumes::parse("data")?)?;
//! assert!(rewritten.contains("path='/var/run/kubevirt-private/vmi-disks/data/v.sock'"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: rewriting twice is rewriting once; what is not ours stays as it was, byte by byte; a machine without the
//! annotation is not touched; what cannot be served as it was asked for is refused, never served otherwise.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod claims;
mod domain;
mod error;
mod gate;
mod hook;
mod launcher;
mod machine;
mod publish;
mod volumes;
mod webhook;

pub use domain::{DomainError, rewrite};
pub use error::ClusterError;
pub use gate::run_gate;
pub use hook::serve_hook;
pub use machine::{Machine, MachineSpec, machine_resource};
pub use publish::{PublishGate, Refusal};
pub use volumes::{VOLUMES_ANNOTATION, Volumes, VolumesError};
pub use webhook::{
    CertificateError, CertificateSource, HookImage, Webhook, WebhookConfig, WebhookError,
};
