//! `holdfast crds`: the definitions of the custom resources, for `kubectl apply -f -`.

use anyhow::Context;
use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, VolumeSession};
use kube::CustomResourceExt;
use std::io::Write;

pub(crate) fn run() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let kinds = [
        BlockPool::crd(),
        SplitVolume::crd(),
        VolumeSession::crd(),
        OrphanExtent::crd(),
    ];
    for crd in kinds {
        let text = serde_yaml::to_string(&crd).context("cannot write a definition as YAML")?;
        write!(out, "---\n{text}").context("cannot write to standard output")?;
    }
    Ok(())
}
