//! The gate at `NodePublishVolume`: a machine's pod gets a volume only when its machine is known to take it from the socket.
//!
//! A pod's containers start after all its volumes are published, and KubeVirt describes the machine to libvirt after that. So
//! whoever waits here until the annotation is there knows that KubeVirt will see it.

use crate::claims::{Behind, behind};
use crate::error::ClusterError;
use crate::launcher::{self, Role};
use crate::machine::{Machine, listed, machine_resource};
use crate::volumes::{VOLUMES_ANNOTATION, Volumes};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

/// Why a volume is not published to a pod.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It will be, most likely: to be tried again.
    #[error(
        "VirtualMachineInstance {machine} does not carry volume {volume} in its annotation {VOLUMES_ANNOTATION} yet; \
         the controller sets it, or you may; its events say what is in the way"
    )]
    NotYet {
        /// Namespace and name.
        machine: String,
        /// The machine's name for the volume.
        volume: String,
    },
    /// It never will be as things are.
    #[error("volume {volume} of VirtualMachineInstance {machine} cannot come from a socket: {why}")]
    Unsupported {
        /// Namespace and name.
        machine: String,
        /// The machine's name for the volume.
        volume: String,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// KubeVirt wants to plug it into a running machine.
    #[error(
        "pod {pod} would plug the volume into a running machine, which KubeVirt cannot do with a socket; \
             put the volume into the VM's template and start that anew"
    )]
    Hotplug {
        /// Namespace and name.
        pod: String,
    },
    /// A launcher's pod that belongs to no machine.
    #[error("pod {pod} says it runs a virtual machine, but no VirtualMachineInstance owns it")]
    NoMachine {
        /// Namespace and name.
        pod: String,
    },
    /// The pod or the machine is not there (any more).
    #[error("{what} does not exist")]
    Gone {
        /// Kind, namespace and name.
        what: String,
    },
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Refusal {
    /// Whether the same call may succeed later, without anybody changing the machine.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(
            self,
            Refusal::Unsupported { .. } | Refusal::Hotplug { .. } | Refusal::NoMachine { .. }
        )
    }
}

/// Asks the cluster whether pods may have volumes.
#[derive(Clone)]
pub struct PublishGate {
    client: Client,
}

impl std::fmt::Debug for PublishGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublishGate")
    }
}

impl PublishGate {
    /// A gate that asks with `client`, which must be allowed to get pods, claims, PersistentVolumes and
    /// VirtualMachineInstances.
    #[must_use]
    pub fn new(client: Client) -> PublishGate {
        PublishGate { client }
    }

    /// Lets a pod have a volume, by the volume's id, and tells the name of the machine that the pod runs. A pod that KubeVirt
    /// does not run may always have it.
    ///
    /// # Errors
    /// Why not, or not yet.
    pub async fn admit(
        &self,
        namespace: &str,
        pod: &str,
        volume_id: &str,
    ) -> Result<Option<String>, Refusal> {
        let full_name = format!("{namespace}/{pod}");
        let pod = self.pod(namespace, pod).await?;
        match launcher::role(&pod) {
            Role::Other => Ok(None),
            Role::Hotplug => Err(Refusal::Hotplug { pod: full_name }),
            Role::Launcher => {
                let name = launcher::machine(&pod);
                let name = name.ok_or(Refusal::NoMachine { pod: full_name })?;
                let machine = self.machine(namespace, name).await?;
                self.admit_to(&machine, namespace, volume_id).await?;
                Ok(Some(name.to_owned()))
            }
        }
    }

    async fn admit_to(
        &self,
        machine: &Machine,
        namespace: &str,
        volume_id: &str,
    ) -> Result<(), Refusal> {
        let name = || {
            format!(
                "{namespace}/{}",
                machine.metadata.name.as_deref().unwrap_or("")
            )
        };
        let carried = Volumes::parse(listed(machine)).unwrap_or_default();
        for volume in machine.spec.claims() {
            let behind = behind(&self.client, namespace, &volume.claim).await?;
            if !matches!(&behind, Behind::Ours { volume_id: id } if id == volume_id) {
                continue;
            }
            let (machine_name, volume) = (name(), volume.name);
            if let Some(why) = machine.spec.objection(&volume) {
                return Err(Refusal::Unsupported {
                    machine: machine_name,
                    volume,
                    why,
                });
            }
            if !carried.contains(&volume) {
                return Err(Refusal::NotYet {
                    machine: machine_name,
                    volume,
                });
            }
        }
        // A launcher's pod may mount a claim that is none of the machine's disks, as a hook's scratch space.
        Ok(())
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, Refusal> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("pod {namespace}/{name}");
        let found = pods.get_opt(name).await;
        let found = found.map_err(ClusterError::on("read", what.clone()))?;
        found.ok_or(Refusal::Gone { what })
    }

    async fn machine(&self, namespace: &str, name: &str) -> Result<Machine, Refusal> {
        let machines: Api<Machine> =
            Api::namespaced_with(self.client.clone(), namespace, &machine_resource());
        let what = format!("VirtualMachineInstance {namespace}/{name}");
        let found = machines.get_opt(name).await;
        let found = found.map_err(ClusterError::on("read", what.clone()))?;
        found.ok_or(Refusal::Gone { what })
    }
}
