//! What needs loop devices. Run it with `cargo test -p holdfast-node --test privileged -- --ignored --test-threads=1`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, POOL, POOL_BYTES, ready};
use holdfast_api::{BlockPool, condition, conditions};
use holdfast_store::Store;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A loop device with a file system that is mounted; undone with this value. Made before a [`Machine`], whose thread sees
/// mounts of its own afterwards: nobody would know then where the device is mounted.
struct Mounted {
    device: String,
    point: PathBuf,
    _folder: TempDir,
}

impl Mounted {
    fn new() -> Mounted {
        let folder = TempDir::with_prefix("hf").unwrap();
        let (file, point) = (folder.path().join("backing"), folder.path().join("mnt"));
        let made = fs::File::create(&file).unwrap();
        made.set_len(POOL_BYTES).unwrap();
        run("mkfs.ext4", &["-q", file.to_str().unwrap()]);
        let device = run("losetup", &["--find", "--show", file.to_str().unwrap()]);
        fs::create_dir(&point).unwrap();
        run("mount", &[&device, point.to_str().unwrap()]);
        Mounted {
            device,
            point,
            _folder: folder,
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.point.to_str().unwrap()]);
        run("losetup", &["--detach", &self.device]);
    }
}

#[test]
#[ignore = "needs root for a loop device"]
fn mounted_device_is_refused_even_with_force() {
    let mounted = Mounted::new();
    let machine = Machine::new();
    let precious = mounted.point.join("precious");
    fs::write(&precious, "data").unwrap();
    machine.run(|node| async move {
        let mut pool = node.pool_object(POOL);
        pool.spec.device.path.clone_from(&mounted.device);
        pool.spec.size = None;
        pool.spec.force = true;
        node.store.create(pool).await.unwrap();
        let refused = |pool: &BlockPool| ready(pool) == Some((false, "DeviceInUse".into()));
        let pool = node.until_pool(POOL, refused).await;
        let told = &pool.status.unwrap().conditions;
        let said = &condition(told, conditions::READY).unwrap().message;
        assert!(said.contains("mnt"), "{said}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
    });
}
