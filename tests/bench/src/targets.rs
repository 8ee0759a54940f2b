//! What was promised, row by row, judged by the figures of the same run.

mod speed;
#[cfg(test)]
mod tests;

use crate::ceiling::Ceiling;
use crate::figures::Figures;
use crate::neighbours::Neighbours;
use crate::peers::{Medium, OURS};
use crate::profile::Profile;
use crate::reactors::Scaling;
use crate::rest::{Rest, Wake};
use serde::Serialize;

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// This run cannot tell.
    Unmeasured,
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) found: String,
    pub(crate) verdict: Verdict,
}

/// What the verdicts are drawn from.
pub(crate) struct Evidence<'a> {
    pub(crate) figures: &'a Figures,
    pub(crate) ceiling: &'a [Ceiling],
    pub(crate) rest: &'a [Rest],
    pub(crate) wakes: &'a [Wake],
    pub(crate) neighbours: &'a [Neighbours],
    pub(crate) scaling: Option<&'a Scaling>,
    pub(crate) profiles: &'a [Profile],
}

/// What a run says of a promise.
enum Finding {
    /// Kept or not, and by what figure.
    Judged(bool, String),
    /// It was measured, but not under the conditions that the promise is about.
    Beside(String),
    Nothing,
}

/// The generator must not be the limit: requests per second.
const CEILING: f64 = 8e6;
/// A neighbour's p99 beside a flood, against its quiet value.
const DISTURBED: f64 = 2.0;
const TWO_REACTORS: f64 = 1.8;
/// Of the time of a request, the share that a profile must explain.
const ACCOUNTED: f64 = 0.9;

/// All promises.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Vec<Target> {
    let mut targets = speed::judge(evidence);
    targets.extend([
        evidence.idle(1, 0.5),
        evidence.idle(100, 3.0),
        evidence.woken(),
        evidence.memory(1, 16.0),
        evidence.memory(100, 64.0),
        evidence.two_reactors(),
    ]);
    let media = [Medium::Null, Medium::Malloc, Medium::Tmpfs];
    targets.extend(media.map(|medium| evidence.disturbed(medium)));
    targets.push(evidence.accounted());
    targets.push(evidence.generator());
    targets
}

impl Evidence<'_> {
    fn at_rest(&self, sessions: usize) -> Option<&Rest> {
        let mut all = self.rest.iter();
        all.find(|rest| rest.peer == OURS && rest.sessions == sessions)
    }

    fn idle(&self, sessions: usize, percent: f64) -> Target {
        let found = self.at_rest(sessions).map(|rest| rest.cpu_percent);
        Target::new(
            format!("idle, {sessions} sessions"),
            format!("< {percent} % of a core"),
            found.map(|found| (found < percent, format!("{found:.2} %"))),
        )
    }

    fn memory(&self, sessions: usize, mib: f64) -> Target {
        let found = self.at_rest(sessions).map(|rest| rest.private_mib);
        Target::new(
            format!("memory, {sessions} sessions"),
            format!("< {mib} MiB, no hugepages"),
            found.map(|found| (found < mib, format!("{found:.1} MiB"))),
        )
    }

    fn woken(&self) -> Target {
        let p50 = |name: &str| {
            let wake = self.wakes.iter().find(|wake| wake.peer == name)?;
            Some(wake.p50_us.median)
        };
        let found = || {
            let (ours, theirs) = (p50(OURS)?, p50("qsd")?);
            let text = format!("{ours:.1} us, theirs {theirs:.1} us");
            Some((ours <= theirs, text))
        };
        Target::new(
            "woken from idle, depth 1".to_owned(),
            "<= 1.0x qsd's latency".to_owned(),
            found(),
        )
    }

    fn two_reactors(&self) -> Target {
        let found = self.scaling.map(|scaling| {
            let times = scaling.times();
            (times >= TWO_REACTORS, format!("{times:.2}x: {scaling}"))
        });
        Target::new(
            "two reactors, one volume with 4 queues".to_owned(),
            format!(">= {TWO_REACTORS}x one reactor"),
            found,
        )
    }

    fn disturbed(&self, medium: Medium) -> Target {
        let mut all = self.neighbours.iter();
        let found = all.find(|found| found.medium == medium).map(|found| {
            let times = found.times();
            let (quiet, beside) = (found.quiet_p99_us.median, found.beside_p99_us.median);
            let text = format!("{times:.2}x: {beside:.2} us, quiet {quiet:.2} us");
            (times <= DISTURBED, text)
        });
        Target::new(
            format!("{medium}, p99 of depth 1 beside depth 128 on the same reactor"),
            format!("<= {DISTURBED}x its quiet value"),
            found,
        )
    }

    fn accounted(&self) -> Target {
        let profiles = self.profiles.iter();
        let least = profiles.min_by(|a, b| a.accounted().total_cmp(&b.accounted()));
        Target::new(
            "profile of a 4 KiB read, every medium".to_owned(),
            format!(">= {:.0} % of its time accounted for", 100.0 * ACCOUNTED),
            least.map(|profile| {
                let share = profile.accounted();
                let text = format!("{:.1} % on {}", 100.0 * share, profile.medium);
                (share >= ACCOUNTED, text)
            }),
        )
    }

    fn generator(&self) -> Target {
        // At depth 1 it is the way of a cache line there and back that limits, not the generator.
        let deep = self.ceiling.iter().filter(|ceiling| ceiling.depth > 1);
        let slowest = deep.filter_map(|ceiling| Some((ceiling.depth, ceiling.most()?)));
        let slowest = slowest.min_by(|a, b| a.1.total_cmp(&b.1));
        Target::new(
            "the load generator against a ring that answers at once".to_owned(),
            format!("> {:.0} M/s", CEILING / 1e6),
            slowest.map(|(depth, speed)| {
                let text = format!("{:.1} M/s at depth {depth}", speed / 1e6);
                (speed > CEILING, text)
            }),
        )
    }
}

impl Target {
    fn new(what: String, wanted: String, found: Option<(bool, String)>) -> Target {
        let finding = found.map_or(Finding::Nothing, |(kept, text)| Finding::Judged(kept, text));
        Target::of(what, wanted, finding)
    }

    fn of(what: String, wanted: String, finding: Finding) -> Target {
        let (verdict, found) = match finding {
            Finding::Judged(true, found) => (Verdict::Pass, found),
            Finding::Judged(false, found) => (Verdict::Fail, found),
            Finding::Beside(found) => (Verdict::Unmeasured, found),
            Finding::Nothing => (Verdict::Unmeasured, "not measured in this run".to_owned()),
        };
        Target {
            what,
            wanted,
            found,
            verdict,
        }
    }
}
