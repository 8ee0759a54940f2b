//! The promises about speed, most of them in times of qemu-storage-daemon in the same run. Those that are bound by the
//! ring were set with processors that share a cache: what was found with others is told, and not judged.

use super::{Evidence, Finding, Target};
use crate::figures::{Middle, Sample};
use crate::machine::Placement;
use crate::peers::{BARE, Medium, OURS, QSD};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Target> {
    let deep = &["randread-32", "randread-128"];
    vec![
        evidence.faster((Medium::Null, &["randread-1"]), 8.5, Some("qsd")),
        evidence.faster((Medium::Null, deep), 5.2, None),
        evidence.memory_speed(),
        evidence.faster((Medium::Tmpfs, &["randread-1"]), 5.5, Some("qsd-threads")),
        evidence.faster((Medium::Tmpfs, deep), 3.6, None),
        evidence.disk_speed(),
        evidence.disk_cpu(),
        evidence.tail(Medium::Null),
        evidence.tail(Medium::Malloc),
    ]
}

impl Evidence<'_> {
    fn median(&self, key: (Medium, &str, &str), what: impl Fn(&Sample) -> f64) -> Option<f64> {
        Some(self.figures.middle(key, what)?.median)
    }

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
        let ratios: Option<Vec<_>> = cases
            .iter()
            .map(|case| self.ratio(medium, case, named))
            .collect();
        let near = |case: &&str| self.figures.placement(medium, case) == Placement::Near;
        let finding = match ratios {
            None => Finding::Nothing,
            Some(all) if cases.iter().all(near) => {
                let worst = all.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
                worst.map_or(Finding::Nothing, |(ratio, text)| {
                    Finding::Judged(ratio >= factor, text)
                })
            }
            Some(all) => {
                let told = all
                    .into_iter()
                    .zip(cases)
                    .map(|((_, text), case)| format!("{text}{}", self.limit(medium, case, named)));
                let told = told.collect::<Vec<_>>().join("; ");
                Finding::Beside(format!(
                    "far processors only, the target is of near ones: {told}"
                ))
            }
        };
        Target::of(
            format!("{medium}, {}", cases.join(" and ")),
            format!(">= {factor}x {}", named.unwrap_or("the best of qsd")),
            finding,
        )
    }

    fn ratio(&self, medium: Medium, case: &str, named: Option<&str>) -> Option<(f64, String)> {
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
    }

    /// What bounds a case between far processors: how many ways of a cache line a request took, and how fast a ring would
    /// be that does nothing else. Empty if that is not known.
    fn limit(&self, medium: Medium, case: &str, named: Option<&str>) -> String {
        let told = || {
            let depth: u16 = case.rsplit('-').next()?.parse().ok()?;
            let ours = self.figures.iops(medium, case, OURS)?;
            let theirs = match named {
                Some(peer) => self.figures.iops(medium, case, peer)?,
                None => self.daemon(medium, case)?.1,
            };
            let way_ns = self.median((medium, case, OURS), |s| s.trip_ns)? / 2.0;
            let ways = 1e9 / ours / way_ns;
            let ceilings = self.ceiling.iter().find(|ceiling| ceiling.depth == depth)?;
            let bound = ceilings.under(Placement::Far)?.median;
            let (least, most) = (1e9 / bound / way_ns, bound / theirs);
            Some(format!(
                " (a request took {ways:.2} ways of a cache line of {way_ns:.0} ns, an empty answer takes {least:.2}: at most {most:.1}x)"
            ))
        };
        told().unwrap_or_default()
    }

    fn memory_speed(&self) -> Target {
        let per_request = |medium| Some(1e9 / self.figures.iops(medium, "randread-32", OURS)?);
        let copy = Middle::of(self.figures.copy_ns.iter().copied());
        let found = || {
            let (null, malloc) = (per_request(Medium::Null)?, per_request(Medium::Malloc)?);
            let copy = copy?.median;
            let allowed = null + 1.1 * copy;
            let text = format!("{malloc:.0} ns, allowed {null:.0} + 1.1 x {copy:.0}");
            Some((malloc <= allowed, text))
        };
        let placement = |medium| self.figures.placement(medium, "randread-32");
        let finding = match found() {
            Some((_, text)) if placement(Medium::Null) != placement(Medium::Malloc) => {
                Finding::Beside(format!("{text}; not both with near processors"))
            }
            Some((kept, text)) => Finding::Judged(kept, text),
            None => Finding::Nothing,
        };
        Target::of(
            "malloc, randread-32, time per request".to_owned(),
            "<= null's + 1.1 x a plain copy".to_owned(),
            finding,
        )
    }

    /// The ratios over all cases of the disk, the worst first.
    fn disk(&self, ratio: impl Fn(&str) -> Option<f64>, low: bool) -> Vec<(f64, String)> {
        let cases = self.figures.cases(Medium::Disk).into_iter();
        let ratios = cases.filter_map(|case| Some((ratio(case)?, case.to_owned())));
        let mut ratios: Vec<_> = ratios.collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !low {
            ratios.reverse();
        }
        ratios
    }

    fn disk_speed(&self) -> Target {
        let iops = |case: &str, peer| self.figures.iops(Medium::Disk, case, peer);
        let ratio = |case: &str| Some(iops(case, OURS)? / iops(case, "qsd-uring")?);
        let ratios = self.disk(ratio, true);
        Target::new(
            "disk, O_DIRECT, every case".to_owned(),
            ">= 1.0x qsd-uring".to_owned(),
            every(&ratios, |ratio| ratio >= 1.0),
        )
    }

    fn disk_cpu(&self) -> Target {
        let cpu = |case: &str, peer| self.median((Medium::Disk, case, peer), |s| s.cpu_ns);
        let ratio = |case: &str, peer| Some(cpu(case, peer)? / cpu(case, "qsd-uring")?);
        let ratios = self.disk(|case| ratio(case, OURS), false);
        // Only one at a time is it a bound: with several, a server may hand them over better.
        let alone = "randread-1";
        let bound = ratio(alone, BARE).map_or(String::new(), |ratio| {
            format!("; {BARE} takes {ratio:.2}x in {alone}")
        });
        Target::new(
            "disk, processor time per request, every case".to_owned(),
            "<= 0.6x qsd-uring".to_owned(),
            every(&ratios, |ratio| ratio <= 0.6).map(|(kept, text)| (kept, text + &bound)),
        )
    }

    fn tail(&self, medium: Medium) -> Target {
        let tail = |medium, peer| self.median((medium, "randread-32", peer), |s| s.p999_us);
        let found = || {
            let (ours, theirs) = (tail(medium, OURS)?, tail(Medium::Null, "qsd")?);
            let text = format!("{ours:.0} us, theirs {theirs:.0} us");
            Some((ours <= theirs, text))
        };
        Target::new(
            format!("{medium}, randread-32, p99.9"),
            "<= qsd's on null".to_owned(),
            found(),
        )
    }
}

/// Judges the worst, and tells how many are as wanted.
fn every(ratios: &[(f64, String)], kept: impl Fn(f64) -> bool) -> Option<(bool, String)> {
    let (worst, case) = ratios.first()?;
    let good = ratios.iter().filter(|(ratio, _)| kept(*ratio)).count();
    let text = format!(
        "{good} of {} cases; worst {worst:.2}x in {case}",
        ratios.len()
    );
    Some((kept(*worst), text))
}
