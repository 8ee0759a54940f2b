//! A guest with one request at a time beside one with many, on the same reactor: whose turn it is.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod common;

use common::{allowed_cpus, eventually};
use holdfast_bdev::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, Null};
use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
use holdfast_testkit::frontend::{Guest, GuestQueue, Layout, Op};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens when a device is given a request, by the number of those it has been given before.
type Event = Arc<dyn Fn(usize) + Send + Sync>;

/// A null device that notes its requests in a list which it shares with others.
#[derive(Clone)]
struct Noting {
    base: Null,
    name: &'static str,
    list: Arc<Mutex<Vec<&'static str>>>,
    event: Event,
}

impl std::fmt::Debug for Noting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl BlockDevice for Noting {
    fn info(&self) -> Info {
        self.base.info()
    }
    fn open_channel(&self, _: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        Ok(Box::new(self.clone()))
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.base.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.base.write_at(offset, buf)
    }
    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.base.write_zeroes_at(offset, len)
    }
    fn flush(&self) -> Result<(), BdevError> {
        self.base.flush()
    }
}

impl IoChannel for Noting {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        let mut list = self.list.lock().unwrap();
        list.push(self.name);
        let before = list.iter().filter(|name| **name == self.name).count() - 1;
        drop(list);
        (self.event)(before);
        self.base.submit(driver, io);
    }
}

const READ: Op = Op::Read {
    offset: 0,
    len: 4096,
};
const FLOOD: usize = 80;
/// The light guest asks while the flood's request of this number is with the device.
const ASKS_AT: usize = 50;

#[test]
fn request_of_a_light_guest_is_taken_before_the_flood_s_next_but_one() {
    let list = Arc::<Mutex<Vec<&'static str>>>::default();
    let light = Arc::<Mutex<Option<GuestQueue>>>::default();
    // Both rings are looked at all the time: no kick and no sleep decides.
    let engine = Engine::start(EngineConfig {
        cpus: allowed_cpus()[..1].to_vec(),
        max_spin: Duration::from_secs(600),
        ..EngineConfig::default()
    });
    let (engine, dir) = (engine.unwrap(), tempfile::tempdir().unwrap());
    let serve = |name: &'static str, event: Event| {
        let device = Noting {
            base: Null::new(1 << 20, 512).unwrap(),
            name,
            list: Arc::clone(&list),
            event,
        };
        engine.add_device(name, Arc::new(device)).unwrap();
        let (source, socket) = (Source::Device(name.to_owned()), dir.path().join(name));
        engine
            .export(&ExportSpec::new(name, source, &socket))
            .unwrap();
        let mut guest = Guest::builder().queue_size(256).connect(&socket).unwrap();
        let queue = guest.take_queues().remove(0);
        (guest, queue)
    };
    let (_light, queue) = serve("light", Arc::new(|_| {}));
    *light.lock().unwrap() = Some(queue);
    let asking = Arc::clone(&light);
    let ask = move |before| {
        if before == ASKS_AT {
            let mut light = asking.lock().unwrap();
            light
                .as_mut()
                .unwrap()
                .submit(READ, Layout::DIRECT)
                .unwrap();
        }
    };
    let (_flood, mut flood) = serve("flood", Arc::new(ask));
    let answered = |queue: &mut GuestQueue| queue.complete().unwrap().len();
    for _ in 0..3 {
        let mut light = light.lock().unwrap();
        let light = light.as_mut().unwrap();
        light.submit(READ, Layout::DIRECT).unwrap();
        eventually("the light guest is answered", || answered(light) == 1);
    }
    list.lock().unwrap().clear();

    for _ in 0..FLOOD {
        flood.stage(READ, Layout::DIRECT).unwrap();
    }
    flood.notify().unwrap();

    let mut left = FLOOD;
    eventually("the flood is answered", || {
        left -= answered(&mut flood);
        left == 0
    });
    eventually("the light guest is answered beside it", || {
        answered(light.lock().unwrap().as_mut().unwrap()) == 1
    });
    let at = list
        .lock()
        .unwrap()
        .iter()
        .position(|name| *name == "light");
    assert!(at.is_some_and(|at| at <= ASKS_AT + 2), "{at:?}");
}
