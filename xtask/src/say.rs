//! Progress for people: one line when a step begins to matter, one when it has ended.

use std::time::Instant;

/// A step under way; says how long it took when it ends.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    since: Instant,
}

impl Step {
    /// Announces the step.
    pub(crate) fn begin(name: impl Into<String>) -> Step {
        let name = name.into();
        println!("  .. {name}");
        Step {
            name,
            since: Instant::now(),
        }
    }

    /// Says that the step is done, and what came of it.
    pub(crate) fn done(&self, outcome: &str) {
        self.line("ok", outcome);
    }

    /// Says that the step failed, and why.
    pub(crate) fn failed(&self, outcome: &str) {
        self.line("FAILED", outcome);
    }

    fn line(&self, verdict: &str, outcome: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        println!("  {verdict} {}: {outcome} ({seconds:.1} s)", self.name);
    }
}
