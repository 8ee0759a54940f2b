//! What was measured, and what can be said of it: medians and spreads of samples that were taken under one placement.

use crate::machine::Placement;
use crate::peers::Medium;
use serde::Serialize;

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
    pub(crate) placement: Placement,
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

    /// The placement that counts: near, which the targets were set for, if it was had often enough. Figures of the other
    /// cannot be compared with them.
    pub(crate) fn placement(&self) -> Placement {
        let all = self.rows.iter().flat_map(|row| &row.samples);
        let near = all.clone().filter(|s| s.placement == Placement::Near);
        match 3 * near.count() >= all.count() {
            true => Placement::Near,
            false => Placement::Far,
        }
    }

    /// How many samples were taken under the other placement, and how many in all.
    pub(crate) fn left_out(&self) -> (usize, usize) {
        let placement = self.placement();
        let all = self.rows.iter().flat_map(|row| &row.samples);
        let out = all.clone().filter(|sample| sample.placement != placement);
        (out.count(), all.count())
    }

    /// One figure of one case on one server; none without a sample under the main placement.
    pub(crate) fn middle(
        &self,
        (medium, case, peer): (Medium, &str, &str),
        what: impl Fn(&Sample) -> f64,
    ) -> Option<Middle> {
        let placement = self.placement();
        let row = self.rows.iter().find(|row| row.is(medium, case, peer))?;
        let comparable = row.samples.iter().filter(|s| s.placement == placement);
        Middle::of(comparable.map(what))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(iops: f64, placement: Placement) -> Sample {
        Sample {
            iops,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            cpu_ns: 1.0,
            cores: 1.0,
            placement,
        }
    }

    #[test]
    fn median_is_taken_over_the_main_placement_only() {
        let mut figures = Figures::default();
        for (iops, placement) in [
            (10.0, Placement::Near),
            (900.0, Placement::Far),
            (30.0, Placement::Near),
            (20.0, Placement::Near),
        ] {
            figures.add(Medium::Null, "case", "peer", sample(iops, placement));
        }
        assert_eq!(figures.iops(Medium::Null, "case", "peer"), Some(20.0));
        assert_eq!(figures.left_out(), (1, 4));
        assert_eq!(figures.iops(Medium::Null, "case", "other"), None);
    }

    #[test]
    fn median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let middle = Middle::of([4.0, 1.0, 2.0, 3.0].into_iter()).unwrap();
        assert!((middle.median - 2.5).abs() < 1e-9 && middle.spread_percent() > 59.9);
        assert!(Middle::of(std::iter::empty()).is_none());
    }
}
