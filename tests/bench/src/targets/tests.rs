//! A verdict is drawn from what was measured under the conditions it is about, and from nothing else.

use super::*;
use crate::ceiling;
use crate::figures::tests::sample;
use crate::figures::{Middle, Sample};
use crate::machine::Placement::{self, Far, Near};
use crate::peers::BARE;
use crate::profile::Profile;

/// Ours and the daemon's in one case, twice each.
fn figures(case: &str, ours: (f64, Placement), theirs: (f64, Placement)) -> Figures {
    let mut figures = Figures::default();
    for _ in 0..2 {
        for (peer, (iops, placement)) in [(OURS, ours), ("qsd", theirs)] {
            figures.add(Medium::Null, case, peer, sample(iops, placement));
        }
    }
    figures
}

fn evidence<'a>(figures: &'a Figures, ceiling: &'a [Ceiling]) -> Evidence<'a> {
    Evidence {
        figures,
        ceiling,
        rest: &[],
        wakes: &[],
        neighbours: &[],
        scaling: None,
        profiles: &[],
    }
}

fn row<'a>(targets: &'a [Target], what: &str) -> &'a Target {
    let mut all = targets.iter();
    all.find(|target| target.what.contains(what)).unwrap()
}

fn verdict(evidence: &Evidence<'_>, what: &str) -> Verdict {
    row(&judge(evidence), what).verdict
}

const ALONE: &str = "null, randread-1";

#[test]
fn ratio_of_near_samples_is_judged_by_its_factor() {
    let enough = figures("randread-1", (8.5e6, Near), (1e6, Near));
    assert_eq!(verdict(&evidence(&enough, &[]), ALONE), Verdict::Pass);
    let less = figures("randread-1", (8.4e6, Near), (1e6, Near));
    assert_eq!(verdict(&evidence(&less, &[]), ALONE), Verdict::Fail);
}

#[test]
fn ratio_of_far_samples_is_told_with_its_bound_and_not_judged() {
    let mut ceiling = ceiling::none();
    ceiling[0].samples = vec![(Near, 4.5e6), (Far, 1.2e6)];
    for ours in [0.8e6, 9e6] {
        let far = figures("randread-1", (ours, Far), (0.3e6, Far));
        let targets = judge(&evidence(&far, &ceiling));
        let row = row(&targets, ALONE);
        assert_eq!(row.verdict, Verdict::Unmeasured, "{}", row.found);
        assert!(row.found.contains("far processors only"), "{}", row.found);
        assert!(row.found.contains("at most 4.0x"), "{}", row.found);
    }
}

#[test]
fn case_in_which_only_we_were_near_is_not_judged() {
    let mixed = figures("randread-1", (9e6, Near), (0.3e6, Far));
    assert_eq!(verdict(&evidence(&mixed, &[]), ALONE), Verdict::Unmeasured);
}

#[test]
fn slowest_depth_decides_for_the_generator_and_depth_one_does_not_count() {
    let none = Figures::default();
    let mut ceiling = ceiling::none();
    let what = "load generator";
    assert_eq!(
        verdict(&evidence(&none, &ceiling), what),
        Verdict::Unmeasured
    );
    ceiling[0].samples = vec![(Near, 4e6)];
    ceiling[1].samples = vec![(Near, 8.1e6), (Far, 3e6)];
    ceiling[2].samples = vec![(Near, 20e6)];
    assert_eq!(verdict(&evidence(&none, &ceiling), what), Verdict::Pass);
    ceiling[1].samples = vec![(Near, 7.9e6)];
    assert_eq!(verdict(&evidence(&none, &ceiling), what), Verdict::Fail);
}

#[test]
fn two_reactors_pass_by_what_was_counted_or_measured() {
    let none = Figures::default();
    let with = |scaling: Scaling| {
        let evidence = Evidence {
            scaling: Some(&scaling),
            ..evidence(&none, &[])
        };
        verdict(&evidence, "two reactors")
    };
    let counted = |two| Scaling::Counted { one: 900.0, two };
    assert_eq!(with(counted(990.0)), Verdict::Pass);
    assert_eq!(with(counted(1010.0)), Verdict::Fail);
    let (one, two) = (10e6, 17.9e6);
    assert_eq!(with(Scaling::Measured { one, two }), Verdict::Fail);
}

#[test]
fn neighbour_may_wait_twice_as_long_and_no_longer() {
    let none = Figures::default();
    let only = |value: f64| Middle::of(std::iter::once(value)).unwrap();
    let with = |beside: f64| {
        let found = Neighbours {
            medium: Medium::Tmpfs,
            placement: Near,
            quiet_p99_us: only(2.0),
            beside_p50_us: only(1.0),
            beside_p99_us: only(beside),
            flood: only(1e6),
        };
        let evidence = Evidence {
            neighbours: &[found],
            ..evidence(&none, &[])
        };
        verdict(&evidence, "tmpfs, p99 of depth 1")
    };
    assert_eq!(with(4.0), Verdict::Pass);
    assert_eq!(with(4.1), Verdict::Fail);
}

#[test]
fn worst_profile_decides_whether_the_time_is_accounted_for() {
    let none = Figures::default();
    let profile = |known: u64| Profile::for_tests(Medium::Null, known, 100);
    let with = |known: u64| {
        let evidence = Evidence {
            profiles: &[profile(99), profile(known)],
            ..evidence(&none, &[])
        };
        verdict(&evidence, "profile")
    };
    assert_eq!(with(90), Verdict::Pass);
    assert_eq!(with(89), Verdict::Fail);
}

#[test]
fn processor_time_on_disk_is_told_beside_what_io_uring_alone_takes() {
    let mut figures = Figures::default();
    for (peer, cpu_ns) in [(OURS, 2000.0), (BARE, 1750.0), ("qsd-uring", 2500.0)] {
        for case in ["randread-1", "randread-32"] {
            let sample = Sample {
                cpu_ns,
                ..sample(1e5, Near)
            };
            figures.add(Medium::Disk, case, peer, sample);
        }
    }
    let targets = judge(&evidence(&figures, &[]));
    let row = row(&targets, "disk, processor time");
    assert_eq!(row.verdict, Verdict::Fail);
    assert!(
        row.found.contains("0 of 2 cases; worst 0.80x"),
        "{}",
        row.found
    );
    assert!(
        row.found.contains("io_uring takes 0.70x in randread-1"),
        "{}",
        row.found
    );
}
