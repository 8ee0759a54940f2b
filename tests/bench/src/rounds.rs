//! The rounds: in each, every server is started anew, measured in every case and ended, so that a bad minute of the
//! machine hits all alike.

use crate::cases::Case;
use crate::figures::{Figures, Sample};
use crate::machine::{Machine, pin};
use crate::peers::{BARE, DEVICE_BYTES, Medium, Peer};
use crate::server::Server;
use anyhow::{Context, ensure};
use holdfast_testkit::frontend::Guest;
use holdfast_testkit::load::{Clock, LoadQueue, run};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    /// How long to try for near processors at the end, with what was met with far ones only.
    pub(crate) near_again: Duration,
    pub(crate) quick: bool,
}

/// Where sockets and files of a run are.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) sockets: TempDir,
    tmpfs: TempDir,
    disk: TempDir,
}

impl Site {
    /// Makes the files behind the media that need one.
    ///
    /// # Errors
    /// If there is no tmpfs, or no room.
    pub(crate) fn new(disk: &Path) -> anyhow::Result<Site> {
        let folder = |path: &Path| {
            let made = TempDir::with_prefix_in("bench-", path);
            made.with_context(|| format!("cannot make a folder in {}", path.display()))
        };
        let site = Site {
            sockets: TempDir::with_prefix("bench-")?,
            tmpfs: folder(Path::new("/dev/shm"))?,
            disk: folder(disk)?,
        };
        for medium in [Medium::Tmpfs, Medium::Disk] {
            File::create(site.file(medium))?.set_len(DEVICE_BYTES)?;
        }
        Ok(site)
    }

    pub(crate) fn file(&self, medium: Medium) -> PathBuf {
        let folder = match medium {
            Medium::Disk => &self.disk,
            _ => &self.tmpfs,
        };
        folder.path().join("disk.img")
    }

    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        self.sockets.path().join(format!("{number}.sock"))
    }
}

/// A guest and its first queue.
pub(crate) struct Session {
    pub(crate) queue: LoadQueue,
    /// Holds the connection.
    _guest: Guest,
}

impl Session {
    /// Connects as a modern guest does, with in-flight tracking wherever it is offered.
    pub(crate) fn open(socket: &Path, case: &Case) -> anyhow::Result<Session> {
        let builder = Guest::builder().memory(4 << 20).queue_size(256).inflight();
        let mut guest = builder.connect(socket)?;
        let mut queues = LoadQueue::all(&mut guest, case.pattern)?;
        Ok(Session {
            queue: queues.remove(0),
            _guest: guest,
        })
    }
}

/// A guest with several queues.
pub(crate) fn queues(
    socket: &Path,
    case: &Case,
    count: usize,
) -> anyhow::Result<(Guest, Vec<LoadQueue>)> {
    let builder = Guest::builder().memory(32 << 20).queue_size(256).inflight();
    let mut guest = builder.queues(count).connect(socket)?;
    let queues = LoadQueue::all(&mut guest, case.pattern)?;
    Ok((guest, queues))
}

/// Everything a round needs.
pub(crate) struct Rounds<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) site: &'a Site,
    pub(crate) clock: &'a Clock,
    pub(crate) pace: Pace,
}

impl Rounds<'_> {
    /// All rounds over all peers.
    ///
    /// # Errors
    /// If the machine itself does not do its part; a peer that fails is named in the figures.
    pub(crate) fn run(&self, peers: &[Peer]) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let memory = vec![1u8; usize::try_from(DEVICE_BYTES)?];
        let mut filled = Vec::new();
        for round in 0..self.pace.rounds {
            let start = Instant::now();
            figures.copy_ns.push(self.copy_ns(&memory)?);
            // Nobody is always first.
            let order = (0..peers.len()).map(|at| &peers[(at + round) % peers.len()]);
            for peer in order {
                let cases = Case::of(peer.medium, self.pace.quick);
                if let Err(why) = self.visit(peer, cases, &mut filled, &mut figures) {
                    figures.miss(format!("{} on {}: {why:#}", peer.name, peer.medium));
                }
            }
            if filled.contains(&Medium::Disk)
                && let Err(why) = self.bare(&mut figures)
            {
                figures.miss(format!("{BARE}: {why:#}"));
            }
            let (number, seconds) = (round + 1, start.elapsed().as_secs_f64());
            eprintln!("round {number} of {}: {seconds:.0} s", self.pace.rounds);
        }
        self.again_near(peers, &mut filled, &mut figures)?;
        Ok(figures)
    }

    /// What was not met with near processors often enough is measured again, as long as there is time and the host has
    /// put the processors together. What a disk does hardly depends on that.
    fn again_near(
        &self,
        peers: &[Peer],
        filled: &mut Vec<Medium>,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.pace.near_again;
        while Instant::now() < deadline {
            let mut lacking = figures.lacking_near();
            lacking.retain(|(medium, ..)| *medium != Medium::Disk);
            if lacking.is_empty() {
                break;
            }
            if !self.machine.wait_near(Duration::from_secs(1))? {
                continue;
            }
            for peer in peers {
                let wanted = |case: &Case| {
                    lacking.iter().any(|(medium, name, who)| {
                        *medium == peer.medium && *name == case.name && *who == peer.name
                    })
                };
                let mut cases = Case::of(peer.medium, self.pace.quick);
                cases.retain(wanted);
                if cases.is_empty() || Instant::now() > deadline {
                    continue;
                }
                if let Err(why) = self.visit(peer, cases, filled, figures) {
                    figures.miss(format!("{} on {}: {why:#}", peer.name, peer.medium));
                }
            }
        }
        Ok(())
    }

    /// One server in some cases of its medium.
    fn visit(
        &self,
        peer: &Peer,
        cases: Vec<Case>,
        filled: &mut Vec<Medium>,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let socket = self.site.socket(0);
        let words = peer.words(&socket, &self.site.file(peer.medium), self.machine.server);
        let server = Server::start(&words, self.machine.server, std::slice::from_ref(&socket))?;
        let mut session = Session::open(&socket, &Case::filling())?;
        match peer.medium {
            Medium::Null => {}
            Medium::Malloc => self.fill(&mut session)?,
            medium if !filled.contains(&medium) => {
                self.fill(&mut session)?;
                filled.push(medium);
            }
            _ => {}
        }
        for case in cases {
            let sample = self.sample(&server, &mut session, &case);
            let sample = sample.with_context(|| format!("case {}", case.name))?;
            figures.add(peer.medium, &case.name, &peer.name, sample);
        }
        drop(session);
        drop(server);
        let _ = std::fs::remove_file(&socket);
        Ok(())
    }

    /// Writes every block once.
    ///
    /// # Errors
    /// If the server does not take them all in time.
    pub(crate) fn fill(&self, session: &mut Session) -> anyhow::Result<()> {
        let case = Case::filling();
        session.queue.set_pattern(case.pattern, case.wait)?;
        let wanted = DEVICE_BYTES / u64::from(case.pattern.bytes);
        let (mut done, piece) = (0, Duration::from_millis(50));
        let deadline = Instant::now() + Duration::from_secs(120);
        while done < wanted {
            ensure!(
                Instant::now() < deadline,
                "filling the device takes too long"
            );
            let queues = std::slice::from_mut(&mut session.queue);
            done += run(queues, self.clock, Duration::ZERO, piece)?
                .latency
                .count();
        }
        Ok(())
    }

    fn sample(
        &self,
        server: &Server,
        session: &mut Session,
        case: &Case,
    ) -> anyhow::Result<Sample> {
        session.queue.set_pattern(case.pattern, case.wait)?;
        let before = self.machine.round_trip_ns()?;
        let queues = std::slice::from_mut(&mut session.queue);
        run(queues, self.clock, Duration::ZERO, self.pace.warm_up)?;
        let used = server.usage()?;
        let tally = run(queues, self.clock, Duration::ZERO, self.pace.measure)?;
        let cpu = server.usage()?.cpu - used.cpu;
        // One that changed in between counts as the worse.
        let trip_ns = before.max(self.machine.round_trip_ns()?);
        ensure!(tally.errors == 0, "{} requests failed", tally.errors);
        Ok(Sample::of(&tally, cpu, trip_ns))
    }

    /// What memory itself takes for random blocks, on the server's processor: into as many buffers as are under way.
    fn copy_ns(&self, memory: &[u8]) -> anyhow::Result<f64> {
        const COPIES: u32 = 200_000;
        let cpu = self.machine.server;
        let copy = || {
            pin(cpu)?;
            let mut buffers = vec![[0u8; 4096]; 32];
            let (blocks, mut state) = (memory.len() / 4096, 0x9e37_79b9_7f4a_7c15_u64);
            let start = Instant::now();
            for turn in 0..COPIES as usize {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let at = usize::try_from(state >> 33)? % blocks * 4096;
                buffers[turn % 32].copy_from_slice(&memory[at..at + 4096]);
                std::hint::black_box(&mut buffers);
            }
            anyhow::Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(COPIES))
        };
        let joined = std::thread::scope(|scope| scope.spawn(copy).join());
        joined.map_err(|_| anyhow::anyhow!("the copy panicked"))?
    }
}
