//! What a section has done, in numbers, and the table of all.

use holdfast_testkit::workload::Report;
use std::time::Duration;

/// The sum of a section.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was done.
    pub what: String,
    /// How many times.
    pub times: u64,
    /// Requests that guests made.
    pub requests: u64,
    /// Of them, answered with an error.
    pub failed: u64,
    /// Lost, torn, doubled, reordered or misplaced data.
    pub flaws: u64,
    /// From the start of a process to the first answer a guest got from it.
    pub recoveries: Vec<Duration>,
    /// How long the section took.
    pub took: Duration,
    /// Figures of this section alone.
    pub notes: Vec<String>,
    /// What went wrong, each with the command that replays it.
    pub failures: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(what: impl Into<String>) -> Outcome {
        let what = what.into();
        Outcome {
            what,
            ..Outcome::default()
        }
    }

    pub(crate) fn add_report(&mut self, report: &Report) {
        self.requests += report.submitted();
        self.failed += report.failed;
        self.flaws += report.flaws;
    }

    /// Takes in what a round of the same section did.
    pub(crate) fn absorb(&mut self, round: Outcome) {
        self.times += round.times;
        self.requests += round.requests;
        self.failed += round.failed;
        self.flaws += round.flaws;
        self.recoveries.extend(round.recoveries);
        self.notes.extend(round.notes);
        self.failures.extend(round.failures);
    }

    /// Whether nothing at all was wrong.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.flaws == 0 && self.failures.is_empty()
    }
}

/// The value below which `share` of 100 lie; zero of nothing.
pub(crate) fn percentile(values: &[Duration], share: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// The table of what was done.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut lines = vec![
        "| what | times | requests | flaws | errors | recovery p50, p99 | took |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    for outcome in outcomes {
        lines.push(row(outcome));
        lines.extend(outcome.notes.iter().map(|note| format!("  {note}")));
        lines.extend(outcome.failures.iter().map(|why| format!("  FAILED {why}")));
    }
    lines.join("\n")
}

fn row(outcome: &Outcome) -> String {
    let recovery = match outcome.recoveries.as_slice() {
        [] => "-".to_owned(),
        times => format!(
            "{} ms, {} ms",
            ms(percentile(times, 50)),
            ms(percentile(times, 99))
        ),
    };
    format!(
        "| {} | {} | {} | {} | {} | {recovery} | {:.0} s |",
        outcome.what,
        outcome.times,
        outcome.requests,
        outcome.flaws,
        outcome.failed,
        outcome.took.as_secs_f64()
    )
}

/// Milliseconds with one digit.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_of_few_values_is_one_of_them() {
        let values: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(11));
        assert_eq!(percentile(&values, 99), Duration::from_millis(20));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn outcome_with_a_failed_request_is_not_clean() {
        let mut outcome = Outcome::of("kills");
        assert!(outcome.is_clean());
        outcome.absorb(Outcome {
            failed: 1,
            ..Outcome::of("a round")
        });
        assert!(!outcome.is_clean());
        assert!(table(&[outcome]).contains("| kills | 0 | 0 | 0 | 1 | - |"));
    }
}
