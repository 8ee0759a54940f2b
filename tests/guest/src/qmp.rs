//! QEMU's control socket: one JSON object a line, answers and events mixed.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A control connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

/// No command that we give takes longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

impl Qmp {
    /// Greets and leaves QEMU's negotiation mode.
    ///
    /// # Errors
    /// If the peer does not behave as QEMU does.
    pub fn new(stream: UnixStream) -> anyhow::Result<Qmp> {
        let mut qmp = Qmp {
            stream: BufReader::new(stream),
            events: Vec::new(),
        };
        qmp.message(Instant::now() + ANSWER_WITHIN)?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command and returns its answer.
    ///
    /// # Errors
    /// With QEMU's own words if it refuses.
    pub fn execute(&mut self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        writeln!(self.stream.get_mut(), "{line}").context("QEMU's control socket is gone")?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let mut message = self.message(deadline)?;
            if message.get("event").is_some() {
                self.events.push(message);
            } else if let Some(error) = message.get("error") {
                bail!("QEMU refused {command}: {error}");
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Waits for an event with data that fit, also one that came in unasked.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_for_event(
        &mut self,
        name: &str,
        fits: impl Fn(&Value) -> bool,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        let wanted = |event: &Value| event["event"] == name && fits(&event["data"]);
        loop {
            if let Some(at) = self.events.iter().position(wanted) {
                self.events.remove(at);
                return Ok(());
            }
            let message = self
                .message(deadline)
                .with_context(|| format!("QEMU did not report {name}"))?;
            self.events.push(message);
        }
    }

    fn message(&mut self, deadline: Instant) -> anyhow::Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero would mean none.
        let left = left.max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left))?;
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .context("QEMU's control socket was silent")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }
}
