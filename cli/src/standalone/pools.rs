//! `--pool NAME=PATH[,size=4GiB]`: a short way to write a BlockPool manifest. A manifest that is there wins, and must agree.

use anyhow::{Context, ensure};
use holdfast_api::{
    BlockPool, BlockPoolSpec, DeviceMatch, check_object_name, parse_quantity, quantity,
};
use holdfast_store::{DirStore, Store};
use std::str::FromStr;

/// A pool named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolArg {
    name: String,
    path: String,
    size_bytes: Option<u64>,
}

impl FromStr for PoolArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let form = "write NAME=PATH or NAME=PATH,size=4GiB";
        let (name, rest) = text.split_once('=').with_context(|| form)?;
        check_object_name(name)?;
        let (path, size) = match rest.rsplit_once(",size=") {
            Some((path, size)) => (path, Some(parse_quantity(size)?)),
            None => (rest, None),
        };
        ensure!(!path.is_empty() && !path.contains(','), form);
        ensure!(size != Some(0), "a pool of 0 bytes holds nothing; {form}");
        let path = std::path::absolute(path).context("cannot resolve the path")?;
        let path = path.to_str().context("the path is not UTF-8")?.to_owned();
        Ok(Self {
            name: name.to_owned(),
            path,
            size_bytes: size,
        })
    }
}

impl PoolArg {
    /// Writes the manifest if there is none.
    pub(super) async fn declare(&self, store: &DirStore, node_name: &str) -> anyhow::Result<()> {
        match store.get::<BlockPool>(&self.name).await? {
            None => {
                store.create(self.manifest(node_name)).await?;
                Ok(())
            }
            Some(found) => self.check_same(&found, node_name),
        }
    }

    fn manifest(&self, node_name: &str) -> BlockPool {
        let spec = BlockPoolSpec {
            node_name: node_name.to_owned(),
            device: DeviceMatch {
                path: self.path.clone(),
                ..Default::default()
            },
            size: self.size_bytes.map(quantity),
            ..Default::default()
        };
        BlockPool::new(&self.name, spec)
    }

    fn check_same(&self, found: &BlockPool, node_name: &str) -> anyhow::Result<()> {
        let (name, spec) = (&self.name, &found.spec);
        ensure!(
            spec.node_name == node_name,
            "BlockPool {name:?} belongs to node {:?}, this is {node_name:?}; start with --node-name {}",
            spec.node_name,
            spec.node_name
        );
        ensure!(
            spec.device.path == self.path,
            "BlockPool {name:?} is on {}, --pool says {}; leave --pool out or change the manifest",
            spec.device.path,
            self.path
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn pool(text: &str) -> PoolArg {
        text.parse().unwrap()
    }

    #[test]
    fn pool_is_read_with_and_without_a_size() {
        let cases = [
            ("p1=/dev/disk/by-id/x", "/dev/disk/by-id/x", None),
            ("p1=/a/b.img,size=4GiB", "/a/b.img", Some(4 << 30)),
            ("p1=/a=b,size=64Mi", "/a=b", Some(64 << 20)),
        ];
        for (text, path, size_bytes) in cases {
            let expected = PoolArg {
                name: "p1".into(),
                path: path.into(),
                size_bytes,
            };
            assert_eq!(pool(text), expected);
        }
        assert!(pool("p1=relative.img").path.starts_with('/'));
    }

    #[test]
    fn pool_that_makes_no_sense_is_refused() {
        for text in [
            "",
            "p1",
            "p1=",
            "=/a",
            "P1=/a",
            "p1=/a,size=0",
            "p1=/a,size=many",
            "p1=/a,size=",
            "p1=/a,sise=1Gi",
            "p1=,size=1Gi",
        ] {
            assert!(text.parse::<PoolArg>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn manifest_is_written_once_and_must_agree_ever_after() {
        let dir = TempDir::new().unwrap();
        let store = DirStore::open(dir.path()).unwrap();
        pool("p1=/a,size=1Gi").declare(&store, "n1").await.unwrap();
        let written: BlockPool = store.get("p1").await.unwrap().unwrap();
        assert_eq!(written.spec.size, Some(quantity(1 << 30)));
        pool("p1=/a").declare(&store, "n1").await.unwrap();
        assert_eq!(store.get("p1").await.unwrap(), Some(written));
        for (text, node, word) in [("p1=/b", "n1", "/b"), ("p1=/a", "n2", "--node-name n1")] {
            let error = pool(text).declare(&store, node).await.unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
