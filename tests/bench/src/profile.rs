//! Where the time of a request goes: the kernel's clock samples a server under load, and every sample is attributed to the
//! stage of a request that its instruction belongs to. What belongs to none is told, too.

mod stage;

use crate::cases::Case;
use crate::peers::{Medium, OURS, Peer};
use crate::rounds::{Rounds, Session};
use crate::server::Server;
use addr2line::Loader;
use anyhow::{Context, ensure};
use holdfast_testkit::load::{Wait, run};
use serde::Serialize;
pub(crate) use stage::STAGES;
use stage::Stage;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One request of 4 KiB on one medium.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Profile {
    pub(crate) medium: Medium,
    /// Processor time of the server for each request, in nanoseconds.
    pub(crate) request_ns: f64,
    /// How many samples, and how many of them in each stage.
    pub(crate) samples: u64,
    pub(crate) stages: BTreeMap<Stage, u64>,
    /// The symbols with most samples that belong to no stage.
    pub(crate) unknown: Vec<(String, u64)>,
}

const DEPTH: u16 = 32;
const WARM_UP: Duration = Duration::from_millis(600);
const MEASURE: Duration = Duration::from_millis(1200);
/// As long as both.
const RECORD: &str = "1.8";
const PER_SECOND: &str = "7919";
const UNKNOWN_TOLD: usize = 5;

impl Profile {
    /// Share of all samples, from 0 to 1.
    pub(crate) fn share(&self, stage: Stage) -> f64 {
        let found = self.stages.get(&stage).copied().unwrap_or(0);
        found as f64 / self.samples.max(1) as f64
    }

    /// Share of the time that belongs to a stage, from 0 to 1.
    pub(crate) fn accounted(&self) -> f64 {
        self.stages.keys().map(|stage| self.share(*stage)).sum()
    }

    /// One with as many samples, so many of them in a stage.
    #[cfg(test)]
    pub(crate) fn for_tests(medium: Medium, known: u64, samples: u64) -> Profile {
        Profile {
            medium,
            request_ns: 100.0,
            samples,
            stages: BTreeMap::from([(Stage::Take, known)]),
            unknown: Vec::new(),
        }
    }

    fn count(&mut self, place: Place) {
        self.samples += 1;
        match place {
            Place::Of(stage) => *self.stages.entry(stage).or_default() += 1,
            Place::Unknown(name) => match self.unknown.iter_mut().find(|(n, _)| *n == name) {
                Some((_, count)) => *count += 1,
                None => self.unknown.push((name, 1)),
            },
        }
    }
}

enum Place {
    Of(Stage),
    Unknown(String),
}

/// Ours on every medium; what could not be sampled is named.
pub(crate) fn profiles(rounds: &Rounds<'_>, peers: &[Peer]) -> (Vec<Profile>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for peer in peers.iter().filter(|peer| peer.name == OURS) {
        match profile(rounds, peer) {
            Ok(profile) => found.push(profile),
            Err(why) => missing.push(format!("profile of {}: {why:#}", peer.medium)),
        }
    }
    (found, missing)
}

fn profile(rounds: &Rounds<'_>, peer: &Peer) -> anyhow::Result<Profile> {
    let socket = rounds.site.socket(0);
    let cpu = rounds.machine.server;
    let words = peer.words(&socket, &rounds.site.file(peer.medium), cpu);
    let server = Server::start(&words, cpu, std::slice::from_ref(&socket))?;
    let mut session = Session::open(&socket, &Case::filling())?;
    if peer.medium != Medium::Null {
        rounds.fill(&mut session)?;
    }
    let pattern = Case::random_reads(DEPTH).pattern;
    session.queue.set_pattern(pattern, Wait::Poll)?;
    let code = Code::of(&server, Path::new(&words[0]))?;
    let data = socket.with_extension("perf");
    let recorder = record(&server, &data)?;
    let queues = std::slice::from_mut(&mut session.queue);
    run(queues, rounds.clock, Duration::ZERO, WARM_UP)?;
    let before = server.usage()?;
    let tally = run(queues, rounds.clock, Duration::ZERO, MEASURE)?;
    let used = server.usage()?.cpu - before.cpu;
    let recorded = recorder.wait_with_output()?;
    let said = String::from_utf8_lossy(&recorded.stderr);
    ensure!(recorded.status.success(), "perf record: {}", said.trim());
    drop((session, server));
    let _ = fs::remove_file(&socket);
    let mut profile = Profile {
        medium: peer.medium,
        request_ns: used.as_secs_f64() * 1e9 / tally.latency.count().max(1) as f64,
        samples: 0,
        stages: BTreeMap::new(),
        unknown: Vec::new(),
    };
    samples(&data, &code, &mut profile)?;
    Ok(profile)
}

/// Samples by the kernel's clock, which every machine has; counters of the processor are rare in virtual ones.
fn record(server: &Server, data: &Path) -> anyhow::Result<Child> {
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-e", "cpu-clock", "-F", PER_SECOND, "-p"]);
    perf.arg(server.id().to_string()).arg("-o").arg(data);
    perf.args(["--", "sleep", RECORD]);
    perf.stdout(Stdio::null()).stderr(Stdio::piped());
    perf.spawn().context("cannot run perf; install linux-perf")
}

fn samples(data: &Path, code: &Code, profile: &mut Profile) -> anyhow::Result<()> {
    let mut perf = Command::new("perf");
    perf.args(["script", "-F", "ip,sym,dso", "-i"]).arg(data);
    let said = perf.output().context("cannot run perf")?;
    ensure!(
        said.status.success(),
        "perf script: {}",
        String::from_utf8_lossy(&said.stderr).trim()
    );
    let mut known = BTreeMap::new();
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        if let Some((address, symbol, file)) = parts(line) {
            let place = match file == code.path {
                true => *known.entry(address).or_insert_with(|| {
                    let by_line = code.stage(address);
                    by_line.or_else(|| Stage::by_path(symbol))
                }),
                false => Stage::outside(symbol, file),
            };
            profile.count(place.map_or_else(|| Place::Unknown(symbol.to_owned()), Place::Of));
        }
    }
    ensure!(profile.samples > 1000, "only {} samples", profile.samples);
    profile
        .unknown
        .sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    profile.unknown.truncate(UNKNOWN_TOLD);
    Ok(())
}

/// Takes a line of `perf script` apart: `ADDRESS SYMBOL (FILE)`.
fn parts(line: &str) -> Option<(u64, &str, &str)> {
    let (address, rest) = line.trim().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (symbol, file) = rest.trim().strip_suffix(')')?.rsplit_once('(')?;
    Some((address, symbol.trim(), file))
}

/// The program of a server, where it was loaded, and what its lines are.
struct Code {
    path: String,
    base: u64,
    lines: Loader,
}

impl Code {
    fn of(server: &Server, program: &Path) -> anyhow::Result<Code> {
        let path = fs::canonicalize(program)?.display().to_string();
        let maps = fs::read_to_string(format!("/proc/{}/maps", server.id()))?;
        let first = maps.lines().find(|line| line.ends_with(&path));
        let start = first.and_then(|line| line.split_once('-'));
        let (start, _) = start.with_context(|| format!("{path} is not mapped"))?;
        let lines = Loader::new(&path).map_err(|why| anyhow::anyhow!("{path}: {why}"))?;
        Ok(Code {
            base: u64::from_str_radix(start, 16)?,
            lines,
            path,
        })
    }

    /// The stage of the innermost function that belongs to one: whatever of the standard library a stage calls is its own.
    fn stage(&self, address: u64) -> Option<Stage> {
        let mut frames = self.lines.find_frames(address - self.base).ok()?;
        while let Ok(Some(frame)) = frames.next() {
            let function = frame
                .function
                .as_ref()
                .and_then(|name| name.demangle().ok());
            let file = frame.location.as_ref().and_then(|place| place.file);
            if let Some(stage) = Stage::of(file.unwrap_or(""), function.as_deref().unwrap_or("")) {
                return Some(stage);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_a_sample_is_taken_apart_at_its_last_bracket() {
        let line = "  ffff81a0 <a::B as C(x)>::d+0x1 ([kernel.kallsyms])";
        let found = parts(line).unwrap();
        assert_eq!(
            found,
            (0xffff_81a0, "<a::B as C(x)>::d+0x1", "[kernel.kallsyms]")
        );
        assert!(parts("comm: 12").is_none());
    }

    #[test]
    fn samples_of_no_stage_are_not_accounted_for() {
        let mut profile = Profile::for_tests(Medium::Null, 3, 3);
        profile.count(Place::Unknown("main".to_owned()));
        assert!((profile.accounted() - 0.75).abs() < 1e-9);
        assert_eq!(profile.unknown, [("main".to_owned(), 1)]);
    }
}
