//! Cuts a section into rounds that can be replayed one by one, and says how far it is.

use crate::Outcome;
use std::time::{Duration, Instant};

/// How often a section says how far it is.
const NEWS: Duration = Duration::from_secs(10);

/// A section's work: how often, from which seed, in rounds of how many.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// The section as `--only` names it.
    pub section: &'static str,
    /// What it does, for the table.
    pub what: &'static str,
    /// How often in all.
    pub times: u64,
    /// How often on one disk.
    pub per_round: u64,
    /// Seed of the first round; each further one takes the next.
    pub seed: u64,
}

impl Rounds {
    /// Runs `round(seed, times)` until all is done. A round that fails is noted with its replay, and the next begins.
    pub(crate) fn run(
        &self,
        mut round: impl FnMut(u64, u64) -> anyhow::Result<Outcome>,
    ) -> Outcome {
        let (start, mut told) = (Instant::now(), Instant::now());
        let mut sum = Outcome::of(self.what);
        let mut left = self.times;
        for number in 0.. {
            if left == 0 {
                break;
            }
            let (seed, times) = (self.seed.wrapping_add(number), left.min(self.per_round));
            left -= times;
            match round(seed, times) {
                Ok(outcome) => sum.absorb(outcome),
                Err(error) => {
                    let failure = format!("{error:#}; {}", self.replay(seed, times));
                    println!("  FAILED {}: {failure}", self.what);
                    sum.failures.push(failure);
                }
            }
            if told.elapsed() >= NEWS {
                told = Instant::now();
                let failures = sum.failures.len();
                let done = self.times - left;
                println!(
                    "  .. {}: {done} of {}, {failures} failures",
                    self.what, self.times
                );
            }
        }
        sum.took = start.elapsed();
        sum
    }

    fn replay(&self, seed: u64, times: u64) -> String {
        let section = self.section;
        format!("replay: cargo xtask soak --only {section} --seed {seed} --cycles {times}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_round_is_counted_and_replayed_by_its_own_seed() {
        let rounds = Rounds {
            section: "kills",
            what: "kill -9",
            times: 25,
            per_round: 10,
            seed: 7,
        };
        let mut seen = Vec::new();
        let sum = rounds.run(|seed, times| {
            seen.push((seed, times));
            anyhow::ensure!(seed != 8, "it broke");
            Ok(Outcome {
                times,
                ..Outcome::of("")
            })
        });
        assert_eq!(seen, [(7, 10), (8, 10), (9, 5)]);
        assert_eq!(sum.times, 15);
        let told = "it broke; replay: cargo xtask soak --only kills --seed 8 --cycles 10";
        assert_eq!(sum.failures, [told]);
    }
}
