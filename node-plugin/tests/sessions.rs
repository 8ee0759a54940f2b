//! Sessions: sockets and their directories, and that machines get their disks back first after a restart.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cut, MIB, Machine, Node, POOL, VOLUME, VOLUME_BYTES};
use holdfast_api::{VolumeSession, condition, conditions, is_true, short_id};
use holdfast_csi::Mode;
use holdfast_store::Store;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

fn session_dir(machine: &Machine, volume: &str) -> PathBuf {
    machine.path("s/v").join(short_id(volume))
}

async fn until_condition(node: &Node, volume: &str, kind: &str, holds: bool) -> VolumeSession {
    let look = |session: Option<&VolumeSession>| {
        let conditions = &session?.status.as_ref()?.conditions;
        let found = condition(conditions, kind)?;
        ((found.status == "True") == holds).then(|| session.cloned())?
    };
    node.until(volume, look).await
}

#[test]
fn staged_volume_listens_at_its_path_for_the_machines_user_only() {
    let machine = Machine::with_volume();
    let dir = session_dir(&machine, VOLUME);
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let session = node
            .store
            .get::<VolumeSession>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        let socket = dir.join("v.sock");
        assert_eq!(
            session.status.unwrap().socket_path,
            socket.to_str().unwrap()
        );
        UnixStream::connect(&socket).unwrap();
        let found = fs::symlink_metadata(&socket).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(
            (found.mode() & 0o777, found.uid(), found.gid()),
            (0o660, 107, 107)
        );
        let found = fs::symlink_metadata(&dir).unwrap();
        assert_eq!(
            (found.mode() & 0o777, found.uid(), found.gid()),
            (0o750, 107, 107)
        );
    });
}

#[test]
fn placeholder_cannot_be_written_and_has_the_volumes_size() {
    let machine = Machine::with_volume();
    let image = session_dir(&machine, VOLUME).join("disk.img");
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let found = fs::symlink_metadata(&image).unwrap();
        assert!(found.file_type().is_file());
        assert_eq!(
            (found.mode() & 0o777, found.uid(), found.gid()),
            (0o444, 0, 0)
        );
        assert_eq!((found.len(), found.blocks()), (VOLUME_BYTES, 0), "sparse");
        node.ask_for(VOLUME, 2 * VOLUME_BYTES).await;
        // The session is looked at again when its volume has grown; the next status of either tells that it was.
        let mut changes = node.store.watch::<VolumeSession>();
        while fs::symlink_metadata(&image).unwrap().len() != 2 * VOLUME_BYTES {
            tokio::time::timeout(std::time::Duration::from_secs(1), changes.changed())
                .await
                .ok();
        }
        assert_eq!(fs::symlink_metadata(&image).unwrap().mode() & 0o777, 0o444);
    });
}

#[test]
fn what_the_machines_user_put_in_its_directory_is_not_followed() {
    let machine = Machine::with_volume();
    let (dir, victim) = (session_dir(&machine, VOLUME), machine.path("victim"));
    fs::write(&victim, b"precious").unwrap();
    machine.run(|node| async move { node.stage(VOLUME).await.unwrap() });
    for name in ["disk.img", ".disk.img.new"] {
        fs::remove_file(dir.join(name)).ok();
        symlink(&victim, dir.join(name)).unwrap();
    }
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        let found = fs::symlink_metadata(dir.join("disk.img")).unwrap();
        assert_eq!(
            (found.file_type().is_file(), found.len()),
            (true, VOLUME_BYTES)
        );
        symlink(&victim, dir.join("another")).unwrap();
        node.unstage(VOLUME).await.unwrap();
        assert!(!dir.exists());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    });
}

#[test]
fn connection_of_a_machine_is_told_by_the_status() {
    let machine = Machine::with_volume();
    let socket = session_dir(&machine, VOLUME).join("v.sock");
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        let front_end = UnixStream::connect(&socket).unwrap();
        until_condition(&node, VOLUME, conditions::CONNECTED, true).await;
        drop(front_end);
        until_condition(&node, VOLUME, conditions::CONNECTED, false).await;
    });
}

#[test]
fn sessions_listen_again_before_the_node_is_ready() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.make_volume("vol-2", MIB).await;
        for volume in [VOLUME, "vol-2"] {
            node.stage(volume).await.unwrap();
        }
    });
    let sockets = [VOLUME, "vol-2"].map(|name| session_dir(&machine, name).join("v.sock"));
    machine.run(|node| async move {
        assert!(!node.agent.ready());
        node.agent.wait_ready().await;
        for socket in sockets {
            UnixStream::connect(socket).unwrap();
        }
    });
}

#[test]
fn trouble_of_one_keeps_no_other_from_being_served() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.make_pool("pool-2").await;
        let mut on_second = node.volume_object("on-second", MIB);
        on_second.spec.pool = "pool-2".into();
        node.store.create(on_second).await.unwrap();
        node.make_volume("damaged", MIB).await;
        for volume in [VOLUME, "on-second", "damaged"] {
            node.stage(volume).await.unwrap();
        }
    });
    fs::remove_file(machine.pool_file("pool-2")).unwrap();
    fs::write(machine.manifest("volumesessions", "damaged"), b"spec: [").unwrap();
    let socket = session_dir(&machine, VOLUME).join("v.sock");
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        UnixStream::connect(socket).unwrap();
        let waiting = node
            .store
            .get::<VolumeSession>("on-second")
            .await
            .unwrap()
            .unwrap();
        assert!(!is_true(
            &waiting.status.unwrap().conditions,
            conditions::EXPORTED
        ));
        assert!(node.engine.export_info("on-second").is_none());
        assert!(node.engine.export_info("damaged").is_none());
        assert!(node.engine.volume(POOL, "damaged").unwrap().is_some());
    });
}

#[test]
fn session_waits_for_a_drive_that_comes_late() {
    let machine = Machine::with_volume();
    machine.run(|node| async move { node.stage(VOLUME).await.unwrap() });
    let (file, aside) = (machine.pool_file(POOL), machine.path("aside.img"));
    fs::rename(&file, &aside).unwrap();
    let socket = session_dir(&machine, VOLUME).join("v.sock");
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        assert!(node.engine.export_info(VOLUME).is_none());
        fs::rename(&aside, &file).unwrap();
        until_condition(&node, VOLUME, conditions::EXPORTED, true).await;
        UnixStream::connect(socket).unwrap();
    });
}

#[test]
fn published_session_that_is_deleted_is_served_until_it_is_unpublished() {
    let machine = Machine::with_volume();
    let socket = session_dir(&machine, VOLUME).join("v.sock");
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        node.publish(VOLUME, "t").await.unwrap();
        node.store.delete::<VolumeSession>(VOLUME).await.unwrap();
    });
    machine.run(|node| async move {
        node.agent.wait_ready().await;
        UnixStream::connect(&socket).unwrap();
        node.unpublish(VOLUME, "t").await.unwrap();
        node.until_gone::<VolumeSession>(VOLUME).await;
        assert!(UnixStream::connect(&socket).is_err());
    });
}

#[test]
fn session_that_vanished_without_being_deleted_stays_exported() {
    let machine = Machine::with_volume();
    let socket = session_dir(&machine, VOLUME).join("v.sock");
    let manifest = machine.manifest("volumesessions", VOLUME);
    machine.run(|node| async move {
        node.stage(VOLUME).await.unwrap();
        fs::remove_file(manifest).unwrap();
        // Any change makes the agent look; the new volume's readiness tells that it has.
        node.make_volume("vol-2", MIB).await;
        node.stage("vol-2").await.unwrap();
        UnixStream::connect(&socket).unwrap();
    });
}

#[test]
fn session_staged_for_readers_is_exported_read_only() {
    let machine = Machine::with_volume();
    machine.run(|node| async move {
        node.stage_as(VOLUME, Mode::SingleNodeReaderOnly)
            .await
            .unwrap();
        let session = node
            .store
            .get::<VolumeSession>(VOLUME)
            .await
            .unwrap()
            .unwrap();
        assert!(session.spec.read_only);
    });
}

#[test]
fn stale_socket_of_a_killed_process_is_replaced() {
    let machine = Machine::with_volume();
    machine.run(|node| async move { node.stage(VOLUME).await.unwrap() });
    let socket = session_dir(&machine, VOLUME).join("v.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap()); // Nobody listens on it any more.
    assert!(!machine.run_cut(Cut::Never, |node| async move {
        node.agent.wait_ready().await;
        UnixStream::connect(&socket).unwrap();
    }));
}
