//! The report: Markdown for people, JSON for programs.

use crate::figures::{Figures, Middle};
use crate::machine::{Machine, Noise, Placement};
use crate::peers::{Medium, OURS};
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
    /// What the generator reaches against a thread that answers everything at once, in requests per second.
    pub(crate) ceiling: Vec<(u16, Middle)>,
    pub(crate) figures: Figures,
    pub(crate) rest: Vec<Rest>,
    pub(crate) wakes: Vec<Wake>,
    pub(crate) targets: Vec<Target>,
}

/// The ceiling that the issue asks for, in requests per second.
const CEILING: f64 = 8e6;

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
        self.at_rest(&mut text);
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
        let (out, all) = self.figures.left_out();
        let placement = format!("{:?}", self.figures.placement()).to_lowercase();
        line(
            text,
            &format!("* placement {placement}; {out} of {all} runs left out for another"),
        );
        if self.figures.placement() == Placement::Far {
            line(
                text,
                "* the targets for null and malloc were set for near processors, these were far",
            );
        }
        for (depth, ceiling) in &self.ceiling {
            let reached = ceiling.median / 1e6;
            let word = if ceiling.median >= CEILING {
                "above"
            } else {
                "BELOW"
            };
            line(
                text,
                &format!(
                    "* ceiling of the generator, depth {depth}: {reached:.1} M/s, {word} 8 M/s"
                ),
            );
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

    fn at_rest(&self, text: &mut String) {
        text.push_str(
            "\n## At rest\n\n| server | sessions | processor | memory without the guests' |\n",
        );
        text.push_str("| --- | --- | --- | --- |\n");
        for rest in &self.rest {
            let Rest {
                peer,
                sessions,
                cpu_percent,
                private_mib,
            } = rest;
            let cells = format!("{cpu_percent:.2} % | {private_mib:.1} MiB");
            line(text, &format!("| {peer} | {sessions} | {cells} |"));
        }
        text.push_str("\nThe first request after a pause of 5 ms, polling client, in us:\n\n");
        text.push_str("| server | p50 | p99 |\n| --- | --- | --- |\n");
        for wake in &self.wakes {
            let (p50, p99) = (wake.p50_us.median, wake.p99_us.median);
            line(text, &format!("| {} | {p50:.1} | {p99:.1} |", wake.peer));
        }
    }
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
