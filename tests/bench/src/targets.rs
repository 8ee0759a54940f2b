//! What was promised, row by row, judged by the figures of the same run.

use crate::figures::Figures;
use crate::peers::{Medium, OURS, QSD};
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
    pub(crate) rest: &'a [Rest],
    pub(crate) wakes: &'a [Wake],
}

/// All promises.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Vec<Target> {
    let mut targets = vec![
        evidence.faster((Medium::Null, &["randread-1"]), 8.5, Some("qsd")),
        evidence.faster((Medium::Null, &["randread-32", "randread-128"]), 5.2, None),
        evidence.memory_speed(),
        evidence.faster((Medium::Tmpfs, &["randread-1"]), 5.5, Some("qsd-threads")),
        evidence.faster((Medium::Tmpfs, &["randread-32", "randread-128"]), 3.6, None),
        evidence.disk_speed(),
        evidence.disk_cpu(),
        evidence.tail(Medium::Null),
        evidence.tail(Medium::Malloc),
    ];
    targets.push(evidence.idle(1, 0.5));
    targets.push(evidence.idle(100, 3.0));
    targets.push(evidence.woken());
    targets.push(evidence.memory(1, 16.0));
    targets.push(evidence.memory(100, 64.0));
    targets.push(Target {
        what: "two reactors, one volume with 4 queues".to_owned(),
        wanted: ">= 1.8x one reactor".to_owned(),
        found: "this benchmark drives one queue on one server processor".to_owned(),
        verdict: Verdict::Unmeasured,
    });
    targets
}

impl Evidence<'_> {
    /// The best configuration of the daemon in a case, and its name.
    fn daemon(&self, medium: Medium, case: &str) -> Option<(&str, f64)> {
        let peers = self.figures.peers(medium).into_iter();
        let daemons = peers.filter(|peer| peer.starts_with(QSD));
        let speeds =
            daemons.filter_map(|peer| Some((peer, self.figures.iops(medium, case, peer)?)));
        speeds.max_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// Times the daemon as it is by default, `named`, or in its best configuration; the worst of the cases counts. The
    /// others are told as well.
    fn faster(
        &self,
        (medium, cases): (Medium, &[&str]),
        factor: f64,
        named: Option<&str>,
    ) -> Target {
        let ratio = |case: &&str| {
            let ours = self.figures.iops(medium, case, OURS)?;
            let (best, fastest) = self.daemon(medium, case)?;
            let (peer, speed) = match named {
                Some(peer) => (peer, self.figures.iops(medium, case, peer)?),
                None => (best, fastest),
            };
            let mut text = format!("{:.2}x {peer} in {case}", ours / speed);
            if peer != best {
                text.push_str(&format!(", {:.2}x {best}", ours / fastest));
            }
            Some((ours / speed, text))
        };
        let ratios: Option<Vec<_>> = cases.iter().map(ratio).collect();
        let worst = ratios.and_then(|all| all.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)));
        Target::new(
            format!("{medium}, {}", cases.join(" and ")),
            format!(">= {factor}x {}", named.unwrap_or("the best of qsd")),
            worst.map(|(ratio, text)| (ratio >= factor, text)),
        )
    }

    fn memory_speed(&self) -> Target {
        let per_request = |medium| Some(1e9 / self.figures.iops(medium, "randread-32", OURS)?);
        let copy = crate::figures::Middle::of(self.figures.copy_ns.iter().copied());
        let found = || {
            let (null, malloc) = (per_request(Medium::Null)?, per_request(Medium::Malloc)?);
            let allowed = null + 1.1 * copy?.median;
            let text = format!(
                "{malloc:.0} ns, allowed {null:.0} + 1.1 x {:.0}",
                copy?.median
            );
            Some((malloc <= allowed, text))
        };
        Target::new(
            "malloc, randread-32, time per request".to_owned(),
            "<= null's + 1.1 x a plain copy".to_owned(),
            found(),
        )
    }

    /// The worst ratio over all cases of the disk.
    fn disk_worst(&self, ratio: impl Fn(&str) -> Option<f64>, low: bool) -> Option<(f64, String)> {
        let cases = self.figures.cases(Medium::Disk).into_iter();
        let ratios = cases.filter_map(|case| Some((ratio(case)?, case.to_owned())));
        let order = |a: &(f64, String), b: &(f64, String)| a.0.total_cmp(&b.0);
        match low {
            true => ratios.min_by(order),
            false => ratios.max_by(order),
        }
    }

    fn disk_speed(&self) -> Target {
        let iops = |case: &str, peer| self.figures.iops(Medium::Disk, case, peer);
        let ratio = |case: &str| Some(iops(case, OURS)? / iops(case, "qsd-uring")?);
        let worst = self.disk_worst(ratio, true);
        Target::new(
            "disk, O_DIRECT, every case".to_owned(),
            ">= 1.0x qsd-uring".to_owned(),
            worst.map(|(ratio, case)| (ratio >= 1.0, format!("{ratio:.2}x in {case}"))),
        )
    }

    fn disk_cpu(&self) -> Target {
        let cpu = |case: &str, peer| {
            let middle = self
                .figures
                .middle((Medium::Disk, case, peer), |s| s.cpu_ns)?;
            Some(middle.median)
        };
        let ratio = |case: &str| Some(cpu(case, OURS)? / cpu(case, "qsd-uring")?);
        let worst = self.disk_worst(ratio, false);
        Target::new(
            "disk, processor time per request, every case".to_owned(),
            "<= 0.6x qsd-uring".to_owned(),
            worst.map(|(ratio, case)| (ratio <= 0.6, format!("{ratio:.2}x in {case}"))),
        )
    }

    fn tail(&self, medium: Medium) -> Target {
        let tail = |medium, peer| {
            let middle = self
                .figures
                .middle((medium, "randread-32", peer), |s| s.p999_us)?;
            Some(middle.median)
        };
        let found = || {
            let (ours, theirs) = (tail(medium, OURS)?, tail(Medium::Null, "qsd")?);
            Some((
                ours <= theirs,
                format!("{ours:.0} us, theirs {theirs:.0} us"),
            ))
        };
        Target::new(
            format!("{medium}, randread-32, p99.9"),
            "<= qsd's on null".to_owned(),
            found(),
        )
    }

    fn at_rest(&self, sessions: usize) -> Option<&Rest> {
        let mut all = self.rest.iter();
        all.find(|rest| rest.peer == OURS && rest.sessions == sessions)
    }

    fn idle(&self, sessions: usize, percent: f64) -> Target {
        let rest = self.at_rest(sessions);
        let found = rest.map(|rest| (rest.cpu_percent, format!("{:.2} %", rest.cpu_percent)));
        Target::new(
            format!("idle, {sessions} sessions"),
            format!("< {percent} % of a core"),
            found.map(|(found, text)| (found < percent, text)),
        )
    }

    fn memory(&self, sessions: usize, mib: f64) -> Target {
        let rest = self.at_rest(sessions);
        let found = rest.map(|rest| (rest.private_mib, format!("{:.1} MiB", rest.private_mib)));
        Target::new(
            format!("memory, {sessions} sessions"),
            format!("< {mib} MiB, no hugepages"),
            found.map(|(found, text)| (found < mib, text)),
        )
    }

    fn woken(&self) -> Target {
        let p50 = |name: &str| {
            let wake = self.wakes.iter().find(|wake| wake.peer == name)?;
            Some(wake.p50_us.median)
        };
        let found = || {
            let (ours, theirs) = (p50(OURS)?, p50("qsd")?);
            Some((
                ours <= theirs,
                format!("{ours:.1} us, theirs {theirs:.1} us"),
            ))
        };
        Target::new(
            "woken from idle".to_owned(),
            "<= 1.0x qsd".to_owned(),
            found(),
        )
    }
}

impl Target {
    fn new(what: String, wanted: String, found: Option<(bool, String)>) -> Target {
        let (verdict, found) = match found {
            Some((true, found)) => (Verdict::Pass, found),
            Some((false, found)) => (Verdict::Fail, found),
            None => (Verdict::Unmeasured, "not measured in this run".to_owned()),
        };
        Target {
            what,
            wanted,
            found,
            verdict,
        }
    }
}
