//! The wire contracts Holdfast speaks, as generated code. No logic.
//!
//! [`csi::v1`] is the Container Storage Interface 1.13, written from a table of its facts
//! (`tests/csi-1.13-wire.tsv`); `tests/csi_contract.rs` compares every message, field, enum value and call with that
//! table, so that a slip of a number cannot reach a cluster.
//!
//! [`kubevirt::hooks`] is how KubeVirt calls a hook sidecar: the versions of one service, side by side.
//!
//! [`holdfast::v1alpha1`] is what Holdfast serves beside it: the drives of a node.
//!
//! ```
//! use holdfast_proto::csi::v1::CapacityRange;
//! let wanted = CapacityRange { required_bytes: 1 << 30, limit_bytes: 0 };
//! assert_eq!(wanted.required_bytes, 1_073_741_824);
//! ```
#![forbid(unsafe_code)]

/// The Container Storage Interface.
pub mod csi {
    /// Version 1 of its package.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::large_futures
    )]
    pub mod v1 {
        tonic::include_proto!("csi.v1");
    }
}

/// What Holdfast serves beside CSI.
pub mod holdfast {
    /// Its first version, which may still grow.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::large_futures
    )]
    pub mod v1alpha1 {
        tonic::include_proto!("holdfast.v1alpha1");
    }
}

/// What KubeVirt and its hook sidecars say to each other.
pub mod kubevirt {
    /// Called around the definition of a machine.
    pub mod hooks {
        /// What a sidecar is.
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            clippy::large_futures
        )]
        pub mod info {
            tonic::include_proto!("kubevirt.hooks.info");
        }

        /// The callback before a machine is defined.
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            clippy::large_futures
        )]
        pub mod v1alpha1 {
            tonic::include_proto!("kubevirt.hooks.v1alpha1");
        }

        /// Adds the one before the cloud-init image is made.
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            clippy::large_futures
        )]
        pub mod v1alpha2 {
            tonic::include_proto!("kubevirt.hooks.v1alpha2");
        }

        /// Adds the end of the machine.
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            clippy::large_futures
        )]
        pub mod v1alpha3 {
            tonic::include_proto!("kubevirt.hooks.v1alpha3");
        }
    }
}
