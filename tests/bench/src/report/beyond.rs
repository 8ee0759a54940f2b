//! The part of the report that is not about speed by case: servers at rest, neighbours, several reactors, and where the
//! time of a request goes.

use super::{Report, line};
use crate::neighbours::Neighbours;
use crate::profile::Profile;
use crate::profile::STAGES;
use crate::rest::Rest;

pub(super) fn write(report: &Report, text: &mut String) {
    at_rest(report, text);
    text.push_str(&neighbours(&report.neighbours));
    reactors(report, text);
    text.push_str(&profile(&report.profiles));
}

fn at_rest(report: &Report, text: &mut String) {
    let head =
        "| server | sessions | processor | memory without the guests' |\n| --- | --- | --- | --- |";
    line(text, &format!("\n## At rest\n\n{head}"));
    for rest in &report.rest {
        let Rest {
            peer,
            sessions,
            cpu_percent,
            private_mib,
        } = rest;
        let cells = format!("{cpu_percent:.2} % | {private_mib:.1} MiB");
        line(text, &format!("| {peer} | {sessions} | {cells} |"));
    }
    let head = "The first request after a pause of 5 ms, polling client, in us:";
    line(
        text,
        &format!("\n{head}\n\n| server | p50 | p99 |\n| --- | --- | --- |"),
    );
    for wake in &report.wakes {
        let (p50, p99) = (wake.p50_us.median, wake.p99_us.median);
        line(text, &format!("| {} | {p50:.1} | {p99:.1} |", wake.peer));
    }
}

pub(crate) fn neighbours(all: &[Neighbours]) -> String {
    let mut made = String::new();
    if all.is_empty() {
        return made;
    }
    let text = &mut made;
    let head = "A guest with one 4 KiB read at a time, beside one with 128 on the same reactor; both polled by one thread, \
                so that the client's share of the wait is in the figures. In us.";
    line(text, &format!("\n## Neighbours\n\n{head}\n"));
    line(
        text,
        "| medium | p99 alone | p50 beside | p99 beside | times | flood, thousand/s | processors |",
    );
    line(text, "| --- | --- | --- | --- | --- | --- | --- |");
    for found in all {
        let (alone, p50) = (found.quiet_p99_us.median, found.beside_p50_us.median);
        let (p99, times) = (found.beside_p99_us.median, found.times());
        let flood = found.flood.median / 1e3;
        let placement = format!("{:?}", found.placement).to_lowercase();
        let medium = found.medium;
        line(
            text,
            &format!(
                "| {medium} | {alone:.2} | {p50:.2} | {p99:.2} | {times:.2} | {flood:.0} | {placement} |"
            ),
        );
    }
    made
}

fn reactors(report: &Report, text: &mut String) {
    if let Some(scaling) = &report.scaling {
        let times = scaling.times();
        line(
            text,
            &format!(
                "\n## Two reactors\n\nOne volume with four queues on two reactors: {times:.2}x one. {scaling}."
            ),
        );
    }
}

/// A column for each medium: nanoseconds in each stage, and how much of the whole that is.
pub(crate) fn profile(profiles: &[Profile]) -> String {
    let mut made = String::new();
    if profiles.is_empty() {
        return made;
    }
    let text = &mut made;
    let head = "Processor time of the server for one 4 KiB read at depth 32, in ns, by samples of the kernel's clock.";
    line(text, &format!("\n## Where the time goes\n\n{head}\n"));
    let row = |text: &mut String, name: &str, cell: &dyn Fn(&Profile) -> String| {
        let cells: Vec<String> = profiles.iter().map(cell).collect();
        line(text, &format!("| {name} | {} |", cells.join(" | ")));
    };
    row(text, "stage", &|profile| profile.medium.to_string());
    line(text, &format!("| --- |{}", " --- |".repeat(profiles.len())));
    for (stage, name) in STAGES {
        if profiles.iter().any(|profile| profile.share(stage) >= 0.001) {
            row(text, name, &|profile| {
                let share = profile.share(stage);
                format!("{:.1} ({:.0} %)", share * profile.request_ns, 100.0 * share)
            });
        }
    }
    row(text, "**accounted for**", &|profile| {
        format!("{:.1} %", 100.0 * profile.accounted())
    });
    row(text, "**whole request**", &|profile| {
        format!("{:.1}", profile.request_ns)
    });
    row(text, "samples", &|profile| profile.samples.to_string());
    for profile in profiles {
        let unknown = profile.unknown.iter();
        let names: Vec<String> = unknown
            .map(|(name, count)| format!("{name} ({count})"))
            .collect();
        line(
            text,
            &format!("\nOf no stage on {}: {}.", profile.medium, names.join(", ")),
        );
    }
    made
}
