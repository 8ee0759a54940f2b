//! The report: Markdown for people, JSON for programs.

mod beyond;

pub(crate) use beyond::{neighbours, profile};

use crate::ceiling::Ceiling;
use crate::figures::{Figures, Middle};
use crate::machine::{Machine, Noise, Placement};
use crate::neighbours::Neighbours;
use crate::peers::{Medium, OURS};
use crate::profile::Profile;
use crate::reactors::Scaling;
use crate::rest::{Rest, Wake};
use crate::targets::{Target, Verdict};
use serde::Serialize;
use std::fmt::Write;

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) noise: Vec<Noise>,
    /// Cache line there and back, in nanoseconds, at the beginning and at the end.
    pub(crate) round_trip_ns: [f64; 2],
    pub(crate) ceiling: Vec<Ceiling>,
    pub(crate) figures: Figures,
    pub(crate) rest: Vec<Rest>,
    pub(crate) wakes: Vec<Wake>,
    pub(crate) neighbours: Vec<Neighbours>,
    pub(crate) scaling: Option<Scaling>,
    pub(crate) profiles: Vec<Profile>,
    /// How long all of it took, in seconds.
    pub(crate) seconds: f64,
    pub(crate) targets: Vec<Target>,
}

impl Report {
    /// The table of targets alone.
    pub(crate) fn verdicts(&self) -> String {
        let mut text = String::from("| target | wanted | found | |\n| --- | --- | --- | --- |\n");
        for target in &self.targets {
            let verdict = match target.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "**FAIL**",
                Verdict::Unmeasured => "unmeasured",
            };
            let Target {
                what,
                wanted,
                found,
                ..
            } = target;
            line(
                &mut text,
                &format!("| {what} | {wanted} | {found} | {verdict} |"),
            );
        }
        text
    }

    /// Everything.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# Benchmark\n\n");
        self.conditions(&mut text);
        text.push_str("\n## Targets\n\n");
        text.push_str(&self.verdicts());
        for medium in Medium::ALL {
            if !self.figures.peers(medium).is_empty() {
                self.medium(&mut text, medium);
            }
        }
        beyond::write(self, &mut text);
        if !self.figures.missing.is_empty() {
            text.push_str("\n## Not measured\n\n");
            for missing in &self.figures.missing {
                line(&mut text, &format!("* {missing}"));
            }
        }
        text
    }

    fn conditions(&self, text: &mut String) {
        let machine = &self.machine;
        let (model, kernel) = (&machine.model, &machine.kernel);
        let (client, server) = (machine.client, machine.server);
        line(
            text,
            &format!(
                "* {model}, {} processors, Linux {kernel}",
                machine.processors
            ),
        );
        line(
            text,
            &format!("* client on processor {client}, servers on {server}"),
        );
        line(
            text,
            &format!("* load average at the beginning: {}", machine.load),
        );
        for noise in &self.noise {
            let Noise {
                cpu,
                lost_percent,
                longest_us,
            } = noise;
            let lost = format!("{lost_percent:.2} % lost, longest gap {longest_us:.0} us");
            line(text, &format!("* noise floor of processor {cpu}: {lost}"));
        }
        let [first, last] = self.round_trip_ns;
        line(
            text,
            &format!("* cache line there and back: {first:.0} ns, at the end {last:.0} ns"),
        );
        let ((near, cases), (out, all)) = (self.figures.near_cases(), self.figures.left_out());
        line(
            text,
            &format!(
                "* beside the disk's, {near} of {cases} cases are compared with near processors, the others with far ones; \
                 {out} of {all} samples are left out, because they belong to the other placement"
            ),
        );
        for ceiling in &self.ceiling {
            line(text, &format!("* {}", reached(ceiling)));
        }
        if let Some(copy) = Middle::of(self.figures.copy_ns.iter().copied()) {
            line(
                text,
                &format!(
                    "* plain copy of 4 KiB from random places: {:.0} ns",
                    copy.median
                ),
            );
        }
        line(text, &format!("* taken in {:.0} s", self.seconds));
        for note in &machine.notes {
            line(text, &format!("* note: {note}"));
        }
    }

    fn medium(&self, text: &mut String, medium: Medium) {
        let peers = self.figures.peers(medium);
        let head = format!(
            "\n## {medium}\n\nThousand requests per second, median and half the range; times ours of theirs.\n"
        );
        line(text, &head);
        line(text, &format!("| case | {} |", peers.join(" | ")));
        line(text, &format!("| --- |{}", " --- |".repeat(peers.len())));
        for case in self.figures.cases(medium) {
            let ours = self.figures.iops(medium, case, OURS);
            let cells = peers.iter().map(|peer| {
                let middle = self.figures.middle((medium, case, peer), |s| s.iops);
                speed(middle, ours.filter(|_| *peer != OURS))
            });
            let cells: Vec<String> = cells.collect();
            line(text, &format!("| {case} | {} |", cells.join(" | ")));
        }
        line(
            text,
            "\nLatency p50 / p99 / p99.9 in us; server's processor time per request in ns.\n",
        );
        line(text, &format!("| case | {} |", peers.join(" | ")));
        line(text, &format!("| --- |{}", " --- |".repeat(peers.len())));
        for case in self.figures.cases(medium) {
            let cells: Vec<String> = peers
                .iter()
                .map(|p| self.latency((medium, case, p)))
                .collect();
            line(text, &format!("| {case} | {} |", cells.join(" | ")));
        }
    }

    fn latency(&self, key: (Medium, &str, &str)) -> String {
        let cell = || {
            let of = |what: fn(&crate::figures::Sample) -> f64| {
                self.figures.middle(key, what).map(|middle| middle.median)
            };
            let (p50, p99, p999) = (of(|s| s.p50_us)?, of(|s| s.p99_us)?, of(|s| s.p999_us)?);
            let cpu = of(|s| s.cpu_ns)?;
            Some(format!("{p50:.1} / {p99:.1} / {p999:.1}; {cpu:.0}"))
        };
        cell().unwrap_or_else(|| "-".to_owned())
    }
}

/// What the generator can do at a depth.
fn reached(ceiling: &Ceiling) -> String {
    let under = |placement, name| {
        let speed = ceiling.under(placement)?.median / 1e6;
        Some(format!("{speed:.1} M/s {name}"))
    };
    let found = [under(Placement::Near, "near"), under(Placement::Far, "far")];
    let found: Vec<String> = found.into_iter().flatten().collect();
    let depth = ceiling.depth;
    format!(
        "ceiling of the generator, depth {depth}: {}",
        found.join(", ")
    )
}

fn speed(middle: Option<Middle>, ours: Option<f64>) -> String {
    let Some(middle) = middle else {
        return "-".to_owned();
    };
    let ratio = ours.map_or(String::new(), |ours| {
        format!(" ({:.2}x)", ours / middle.median)
    });
    let thousands = middle.median / 1e3;
    format!("{thousands:.1} ±{:.0} %{ratio}", middle.spread_percent())
}

fn line(text: &mut String, words: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{words}");
}
