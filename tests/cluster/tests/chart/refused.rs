//! Values: what the schema takes and what it refuses, before anything is sent to a cluster.

use crate::helm::{chart, helm, refused, run};
use anyhow::ensure;
use holdfast_cluster::Plane;
use std::process::Command;

/// A value that must be refused, and a word that the complaint must have: the key, so that people find it.
const BAD: &[(&str, &str)] = &[
    ("nosuchkey=1", "nosuchkey"),
    ("controller.replica=2", "replica"),
    ("controller.replicas=0", "replicas"),
    ("controller.replicas=two", "replicas"),
    ("controller.resources.limits.memory=lots", "memory"),
    ("controller.resources.limits.memory=-1", "memory"),
    ("controller.extraArgs={csi-endpoint=x}", "extraArgs"),
    ("image.tag=latest", "tag"),
    ("image.digest=sha256:abc", "digest"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("image.registry=HTTPS://example.com", "registry"),
    ("kubeletDir=var/lib/kubelet", "kubeletDir"),
    ("kubeletDir=/var/lib/kubelet/", "kubeletDir"),
    ("stateDir=/var/lib/../etc", "stateDir"),
    ("log.format=xml", "format"),
    ("node.updateStrategy.type=Recreate", "type"),
    ("node.updateStrategy.maxUnavailable=0", "maxUnavailable"),
    ("node.cpus=all", "cpus"),
    ("node.startupSeconds=1", "startupSeconds"),
    ("sidecars.attacher.image.tag=v1", "attacher"),
    (
        "sidecars.provisioner.capacityPollInterval=30",
        "capacityPollInterval",
    ),
    ("storageClasses[0].name=Fast_One", "name"),
    (
        "storageClasses[0].name=a,storageClasses[0].volumeBindingMode=Immediate",
        "volumeBindingMode",
    ),
    (
        "storageClasses[0].name=a,storageClasses[0].reclaimPolicy=Recycle",
        "reclaimPolicy",
    ),
    (
        "storageClasses[0].name=a,storageClasses[0].parameters.fsType=ext4",
        "fsType",
    ),
    (
        "storageClasses[0].name=a,storageClasses[0].parameters.onDeviceLoss=panic",
        "onDeviceLoss",
    ),
    ("kubevirt.webhook.caBundle=/etc/ca.crt", "caBundle"),
    ("kubevirt.webhook.certManager.issuer=corp", "issuer"),
    ("volumeAttributesClasses[0].name=a", "parameters"),
    (
        "volumeAttributesClasses[0].name=a,volumeAttributesClasses[0].parameters.iops=fast",
        "iops",
    ),
    (
        "volumeAttributesClasses[0].name=a,volumeAttributesClasses[0].parameters.iopsBurst=9",
        "iops",
    ),
    ("pools[0].name=p,pools[0].nodeName=n", "device"),
    (
        "pools[0].name=p,pools[0].nodeName=n,pools[0].device.path=/dev/sda",
        "path",
    ),
    (
        "pools[0].name=p,pools[0].nodeName=n,pools[0].device.path=/dev/nvme0n1",
        "path",
    ),
    (
        "pools[0].name=p,pools[0].nodeName=n,pools[0].device.serial=a,pools[0].device.wwid=b",
        "device",
    ),
    (
        "pools[0].name=p,pools[0].nodeName=n,pools[0].device.path=/x,pools[0].device.namespaceId=1",
        "namespaceId",
    ),
    (
        "pools[0].name=p,pools[0].nodeName=n,pools[0].device.path=/x,pools[0].size=1.5Gi",
        "size",
    ),
    (
        "pools[0].name=p,pools[0].nodeName=n,pools[0].device.path=/x,pools[0].wipe=true",
        "wipe",
    ),
    ("networkPolicy.apiServerPorts={99999}", "apiServerPorts"),
    ("metrics.serviceMonitor.interval=soon", "interval"),
    ("metrics.bindAddress=::", "bindAddress"),
    ("uninstall.force=maybe", "force"),
    ("extraObjects[0].metadata.name=x", "apiVersion"),
];

const GOOD: &[&str] = &[
    "controller.resources.limits.cpu=1,controller.resources.limits.memory=1.5Gi",
    "image.tag=0.1.0-rc.1,image.registry=registry.example.com:5000/team",
    "node.cpus=0\\,2-4,metrics.bindAddress=0.0.0.0",
    "storageClasses=null",
    "storageClasses[0].name=a,storageClasses[0].parameters.holdSeconds=30",
    "pools[0].name=p,pools[0].nodeName=n.example,pools[0].device.path=/dev/disk/by-id/nvme-x",
    "pools[0].name=p,pools[0].nodeName=n,pools[0].device.serial=S1,pools[0].device.namespaceId=2",
    "pools[0].name=p,pools[0].nodeName=n,pools[0].device.wwid=eui.0025,pools[0].size=10Gi,pools[0].cordoned=true",
    "global.imageRegistry=mirror.example,global.ofAParentChart=1",
];

fn with(plane: &Plane, values: &str) -> anyhow::Result<Command> {
    let mut command = helm(plane, &["template", "holdfast", "--set", values])?;
    command.arg(chart());
    Ok(command)
}

pub(crate) async fn good_values_are_taken(plane: &mut Plane) -> anyhow::Result<()> {
    for values in GOOD {
        run(&mut with(plane, values)?)?;
    }
    Ok(())
}

pub(crate) async fn values_that_mean_nothing_are_refused(plane: &mut Plane) -> anyhow::Result<()> {
    for (values, word) in BAD {
        let complaint = refused(&mut with(plane, values)?)?;
        ensure!(complaint.contains("schema"), "{values}: {complaint}");
        ensure!(
            complaint.contains(word),
            "{values}: no {word} in {complaint}"
        );
    }
    Ok(())
}
