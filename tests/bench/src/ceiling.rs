//! What the load generator reaches when nothing holds it up: a thread that answers every request at once. No server can be
//! faster, so it bounds every ratio as well.

use crate::figures::Middle;
use crate::machine::{Placement, pin};
use crate::peers::DEVICE_BYTES;
use crate::rounds::Rounds;
use holdfast_testkit::load::{Echo, Pattern, run};
use serde::Serialize;

/// The generator at one depth.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ceiling {
    pub(crate) depth: u16,
    /// Requests per second, and under which placement.
    pub(crate) samples: Vec<(Placement, f64)>,
}

const DEPTHS: [u16; 3] = [1, 32, 128];

/// Nothing measured yet, at all depths.
pub(crate) fn none() -> Vec<Ceiling> {
    let empty = |depth| Ceiling {
        depth,
        samples: Vec::new(),
    };
    DEPTHS.map(empty).into()
}

impl Ceiling {
    /// The median under one placement.
    pub(crate) fn under(&self, placement: Placement) -> Option<Middle> {
        let comparable = self.samples.iter().filter(|(under, _)| *under == placement);
        Middle::of(comparable.map(|(_, speed)| *speed))
    }

    /// The median under the better placement that was met.
    pub(crate) fn most(&self) -> Option<f64> {
        let middle = self
            .under(Placement::Near)
            .or_else(|| self.under(Placement::Far))?;
        Some(middle.median)
    }

    /// Takes one more sample.
    ///
    /// # Errors
    /// If the ring cannot be set up, or answers stay out.
    pub(crate) fn measure(&mut self, rounds: &Rounds<'_>) -> anyhow::Result<()> {
        let (machine, pace) = (rounds.machine, rounds.pace);
        let server = machine.server;
        let pattern = Pattern {
            depth: self.depth,
            bytes: 4096,
            reads_percent: 100,
            sequential: false,
            span_bytes: DEVICE_BYTES,
        };
        let begin = move || pin(server).unwrap_or_else(|why| eprintln!("echo: {why:#}"));
        let before = Placement::of(machine.round_trip_ns()?);
        let (queue, _echo) = Echo::start(256, pattern, begin)?;
        let tally = run(&mut [queue], rounds.clock, pace.warm_up, pace.measure / 2)?;
        let after = Placement::of(machine.round_trip_ns()?);
        self.samples.push((before.max(after), tally.per_second()));
        Ok(())
    }
}
