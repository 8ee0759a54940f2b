//! KubeVirt's side of Holdfast against the real things: an API server that knows KubeVirt's kinds, and libvirt.
#![forbid(unsafe_code)]
