//! Reads out of a test runner's own words how many tests passed, failed and were skipped.

use std::ops::AddAssign;

/// Tests that ran, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Count {
    /// The sum of all `test result:` lines of cargo.
    pub(crate) fn of_cargo(log: &str) -> Count {
        let mut sum = Count::default();
        for line in log.lines().filter(|l| l.starts_with("test result:")) {
            sum += Count {
                passed: before(line, " passed"),
                failed: before(line, " failed"),
                skipped: before(line, " ignored"),
            };
        }
        sum
    }
}

/// The number that stands right before `word`, 0 if there is none.
fn before(line: &str, word: &str) -> u64 {
    line.split(word)
        .next()
        .filter(|head| head.len() < line.len())
        .and_then(|head| head.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added_up() {
        let log = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
            test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let expected = Count {
            passed: 43,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(Count::of_cargo(log), expected);
    }

    #[test]
    fn log_without_results_counts_nothing() {
        assert_eq!(
            Count::of_cargo("error: could not compile"),
            Count::default()
        );
    }
}
