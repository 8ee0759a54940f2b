//! `kill -9` under load: the guest sees a pause, no error, no lost write, no request answered twice.
#![allow(clippy::unwrap_used)]

use holdfast_testkit::frontend::{Guest, GuestError};
use holdfast_testkit::workload::{Plan, Workload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIZE: u64 = 16 << 20;

/// A `holdfast serve` of a file. Killed with the value.
struct Server(Child);

impl Server {
    fn start(socket: &Path, file: &Path) -> Server {
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .arg("serve")
            .arg("--socket")
            .arg(socket)
            .arg("--bdev")
            .arg(format!("uring:path={}", file.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A disk file on a real file system; gone with the value.
struct Disk(PathBuf);

impl Disk {
    fn new(name: &str) -> Disk {
        let path = Path::new(env!("CARGO_BIN_EXE_holdfast")).with_file_name(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(SIZE).unwrap();
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Connects again as soon as somebody listens.
fn reconnect(guest: &mut Guest) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match guest.reconnect() {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < deadline, "nobody came back: {error}"),
        }
    }
}

/// Goes on with the workload until `until`; a broken connection is not its concern.
fn work(workload: &mut Workload, guest: &mut Guest, until: Instant) -> Result<(), GuestError> {
    while Instant::now() < until {
        workload.fill(guest.queues(), 64)?;
        workload.step(guest.queues())?;
    }
    Ok(())
}

#[test]
fn killed_under_load_fifty_times_nothing_is_lost_torn_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v.sock");
    let disk = Disk::new("kill.disk");
    let mut server = Server::start(&socket, &disk.0);
    let builder = Guest::builder().queues(4).queue_size(128).inflight();
    let mut guest = builder
        .deadline(Duration::from_secs(20))
        .connect(&socket)
        .unwrap();
    let mut workload = Workload::new(Plan::default(), 1, 0..SIZE / 512);
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..50 {
        let until = Instant::now() + Duration::from_millis(random.random_range(2..60));
        work(&mut workload, &mut guest, until).unwrap();
        workload.fill(guest.queues(), 128).unwrap();
        drop(server);
        guest.disconnect();
        server = Server::start(&socket, &disk.0);
        reconnect(&mut guest);
    }
    workload.drain(guest.queues()).unwrap();
    workload.run(&mut guest, 2000).unwrap();
    workload.report().assert_clean();
    assert!(
        workload.report().submitted() > 4000,
        "too little load to prove anything"
    );
}
