//! What was measured, and what can be said of it: medians and spreads of samples that were taken under one placement.

use crate::machine::Placement;
use crate::peers::Medium;
use holdfast_testkit::load::Tally;
use serde::Serialize;
use std::time::Duration;

/// One run of one case on one server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) iops: f64,
    /// Latencies in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Processor time of the server per request, in nanoseconds.
    pub(crate) cpu_ns: f64,
    /// Share of a core the server used.
    pub(crate) cores: f64,
    /// A cache line to the other processor and back, in nanoseconds; the longer of before and after.
    pub(crate) trip_ns: f64,
    pub(crate) placement: Placement,
}

impl Sample {
    /// What was answered, for so much processor time of the server.
    pub(crate) fn of(tally: &Tally, cpu: Duration, trip_ns: f64) -> Sample {
        let us = |share| tally.latency.quantile(share) as f64 / 1e3;
        Sample {
            iops: tally.per_second(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            cpu_ns: cpu.as_secs_f64() * 1e9 / tally.latency.count().max(1) as f64,
            cores: cpu.as_secs_f64() / tally.elapsed.as_secs_f64().max(1e-9),
            trip_ns,
            placement: Placement::of(trip_ns),
        }
    }
}

/// All samples of one case on one server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) medium: Medium,
    pub(crate) case: String,
    pub(crate) peer: String,
    pub(crate) samples: Vec<Sample>,
}

/// Everything the rounds brought.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) rows: Vec<Row>,
    /// A plain copy of 4 KiB from a random place of memory, in nanoseconds; one figure per round.
    pub(crate) copy_ns: Vec<f64>,
    /// Who could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

/// So many near samples of a case are enough, where there are as many in all: one may be a fluke.
const ENOUGH: usize = 2;

/// A median and the range it is the middle of.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) samples: usize,
}

impl Middle {
    /// None of nothing.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Middle> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Middle {
            median: f64::midpoint(values[low], values[high]),
            min,
            max,
            samples: values.len(),
        })
    }

    /// Half the range, in percent of the median.
    pub(crate) fn spread_percent(&self) -> f64 {
        50.0 * (self.max - self.min) / self.median
    }
}

impl Figures {
    pub(crate) fn add(&mut self, medium: Medium, case: &str, peer: &str, sample: Sample) {
        let found = self.rows.iter_mut().find(|row| row.is(medium, case, peer));
        match found {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                medium,
                case: case.to_owned(),
                peer: peer.to_owned(),
                samples: vec![sample],
            }),
        }
    }

    pub(crate) fn miss(&mut self, what: String) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }

    /// The placement that counts in a case: near, which the targets were set for, if every peer was met there often
    /// enough to be compared. Figures of the other cannot be compared with them.
    pub(crate) fn placement(&self, medium: Medium, case: &str) -> Placement {
        let mut rows = self.rows.iter();
        let lacking = rows.any(|row| row.medium == medium && row.case == case && row.lacks_near());
        match lacking {
            false => Placement::Near,
            true => Placement::Far,
        }
    }

    /// Peers and cases that have not been met with near processors often enough.
    pub(crate) fn lacking_near(&self) -> Vec<(Medium, String, String)> {
        let rows = self.rows.iter().filter(|row| row.lacks_near());
        let names = rows.map(|row| (row.medium, row.case.clone(), row.peer.clone()));
        names.collect()
    }

    /// How many samples were taken under another placement than their case's, and how many in all.
    pub(crate) fn left_out(&self) -> (usize, usize) {
        let out = self.rows.iter().map(|row| {
            let placement = self.placement(row.medium, &row.case);
            row.samples.len() - row.under(placement).count()
        });
        let all = self.rows.iter().map(|row| row.samples.len());
        (out.sum(), all.sum())
    }

    /// How many cases are compared with near processors, and how many there are.
    pub(crate) fn near_cases(&self) -> (usize, usize) {
        let media = Medium::ALL.into_iter().filter(|m| *m != Medium::Disk);
        let cases =
            media.flat_map(|medium| self.cases(medium).into_iter().map(move |c| (medium, c)));
        let placements: Vec<Placement> = cases.map(|(m, case)| self.placement(m, case)).collect();
        let near = placements.iter().filter(|p| **p == Placement::Near);
        (near.count(), placements.len())
    }

    /// One figure of one case on one server; none without a sample under the placement that counts.
    pub(crate) fn middle(
        &self,
        (medium, case, peer): (Medium, &str, &str),
        what: impl Fn(&Sample) -> f64,
    ) -> Option<Middle> {
        let placement = self.placement(medium, case);
        let row = self.rows.iter().find(|row| row.is(medium, case, peer))?;
        Middle::of(row.under(placement).map(what))
    }

    pub(crate) fn iops(&self, medium: Medium, case: &str, peer: &str) -> Option<f64> {
        let middle = self.middle((medium, case, peer), |sample| sample.iops)?;
        Some(middle.median)
    }

    /// The peers of a medium, in the order they were first measured.
    pub(crate) fn peers(&self, medium: Medium) -> Vec<&str> {
        self.distinct(medium, |row| &row.peer)
    }

    /// The cases of a medium.
    pub(crate) fn cases(&self, medium: Medium) -> Vec<&str> {
        self.distinct(medium, |row| &row.case)
    }

    fn distinct<'a>(&'a self, medium: Medium, name: impl Fn(&'a Row) -> &'a str) -> Vec<&'a str> {
        let mut names = Vec::new();
        for row in self.rows.iter().filter(|row| row.medium == medium) {
            if !names.contains(&name(row)) {
                names.push(name(row));
            }
        }
        names
    }
}

impl Row {
    fn is(&self, medium: Medium, case: &str, peer: &str) -> bool {
        self.medium == medium && self.case == case && self.peer == peer
    }

    /// The samples that count where this placement does. On a disk all of them do: to its requests the way of a line is little,
    /// and of few samples the drive's own moods would be all that is seen.
    fn under(&self, placement: Placement) -> impl Iterator<Item = &Sample> {
        let all = self.medium == Medium::Disk;
        let samples = self.samples.iter();
        samples.filter(move |sample| all || sample.placement == placement)
    }

    fn lacks_near(&self) -> bool {
        let near = self
            .samples
            .iter()
            .filter(|s| s.placement == Placement::Near);
        near.count() < ENOUGH.min(self.samples.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sample that is about nothing but speed.
    pub(crate) fn sample(iops: f64, placement: Placement) -> Sample {
        Sample {
            iops,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            cpu_ns: 1.0,
            cores: 1.0,
            trip_ns: match placement {
                Placement::Near => 75.0,
                Placement::Far => 350.0,
            },
            placement,
        }
    }

    fn figures(samples: &[(&str, f64, Placement)]) -> Figures {
        let mut figures = Figures::default();
        for (peer, iops, placement) in samples {
            figures.add(Medium::Null, "case", peer, sample(*iops, *placement));
        }
        figures
    }

    #[test]
    fn median_of_a_case_met_near_often_enough_leaves_out_what_was_far() {
        let figures = figures(&[
            ("us", 10.0, Placement::Near),
            ("us", 900.0, Placement::Far),
            ("us", 30.0, Placement::Near),
            ("us", 20.0, Placement::Near),
        ]);
        assert_eq!(figures.iops(Medium::Null, "case", "us"), Some(20.0));
        assert_eq!((figures.left_out(), figures.near_cases()), ((1, 4), (1, 1)));
        assert!(figures.lacking_near().is_empty());
        assert_eq!(figures.iops(Medium::Null, "case", "other"), None);
    }

    #[test]
    fn case_in_which_one_peer_was_seldom_near_is_compared_far() {
        let figures = figures(&[
            ("us", 10.0, Placement::Near),
            ("us", 20.0, Placement::Near),
            ("us", 4.0, Placement::Far),
            ("them", 9.0, Placement::Near),
            ("them", 2.0, Placement::Far),
            ("them", 2.0, Placement::Far),
        ]);
        assert_eq!(figures.placement(Medium::Null, "case"), Placement::Far);
        assert_eq!(figures.iops(Medium::Null, "case", "us"), Some(4.0));
        assert_eq!(figures.iops(Medium::Null, "case", "them"), Some(2.0));
        let lacking = vec![(Medium::Null, "case".to_owned(), "them".to_owned())];
        assert_eq!(figures.lacking_near(), lacking);
    }

    #[test]
    fn median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let middle = Middle::of([4.0, 1.0, 2.0, 3.0].into_iter()).unwrap();
        assert!((middle.median - 2.5).abs() < 1e-9 && middle.spread_percent() > 59.9);
        assert!(Middle::of(std::iter::empty()).is_none());
    }

    #[test]
    fn every_sample_of_a_disk_counts() {
        let mut figures = Figures::default();
        for (iops, placement) in [
            (1e5, Placement::Near),
            (2e5, Placement::Far),
            (3e5, Placement::Far),
        ] {
            figures.add(Medium::Disk, "randread-32", "ours", sample(iops, placement));
        }
        let key = (Medium::Disk, "randread-32", "ours");
        let middle = figures.middle(key, |sample| sample.iops).unwrap();
        assert_eq!((middle.median, middle.samples), (2e5, 3));
        assert_eq!((figures.left_out(), figures.near_cases()), ((0, 3), (0, 0)));
    }
}
