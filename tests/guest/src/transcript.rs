//! Everything that a stream has said so far, and waiting for it to say more.

use anyhow::bail;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// The text of a stream, read by a thread of its own until the stream ends.
#[derive(Clone, Debug)]
pub struct Transcript {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    text: String,
    ended: bool,
}

/// What a pattern was found in.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where the pattern begins.
    pub start: usize,
    /// Right behind it.
    pub end: usize,
}

impl Transcript {
    /// Begins to read `stream`; `name` stands in error messages.
    pub fn of(name: &str, mut stream: impl Read + Send + 'static) -> Transcript {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            said: Mutex::default(),
            more: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                // Console text is ASCII but for damage; damage shows as a replacement character.
                let text = String::from_utf8_lossy(&buffer[..length]).replace('\r', "");
                writer.lock().text.push_str(&text);
                writer.more.notify_all();
            }
            writer.lock().ended = true;
            writer.more.notify_all();
        });
        Transcript { shared }
    }

    /// Waits until `pattern` stands in the text at or behind `from`.
    ///
    /// # Errors
    /// At the deadline, or when the stream ends without it; the message has the last lines.
    pub fn wait_for(&self, from: usize, pattern: &str, by: Instant) -> anyhow::Result<Found> {
        let mut said = self.shared.lock();
        loop {
            let position = said.text.get(from..).and_then(|text| text.find(pattern));
            if let Some(position) = position {
                let start = from + position;
                let end = start + pattern.len();
                return Ok(Found { start, end });
            }
            let left = by.saturating_duration_since(Instant::now());
            if said.ended || left.is_zero() {
                let why = if said.ended { "ended" } else { "was silent" };
                let (name, last) = (&self.shared.name, tail(&said.text));
                bail!("the {name} {why} before {pattern:?}; its last lines:\n{last}");
            }
            let waited = self.shared.more.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The text between two positions.
    pub fn between(&self, start: usize, end: usize) -> String {
        self.shared
            .lock()
            .text
            .get(start..end)
            .unwrap_or_default()
            .to_owned()
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.shared.lock().text.clone()
    }

    /// The last lines, for error messages.
    pub fn tail(&self) -> String {
        tail(&self.shared.lock().text)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TAIL_LINES: usize = 25;

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn pattern_that_arrives_in_pieces_is_found_from_where_one_looks() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let transcript = Transcript::of("pipe", reader);
        writer.write_all(b"ready rea").unwrap();
        let first = transcript.wait_for(0, "ready", soon()).unwrap();
        writer.write_all(b"dy\r\n").unwrap();
        let second = transcript.wait_for(first.end, "ready\n", soon()).unwrap();
        assert_eq!((first.start, second.start, second.end), (0, 6, 12));
    }

    #[test]
    fn stream_that_ends_is_an_error_with_its_last_words() {
        let transcript = Transcript::of("pipe", &b"last words"[..]);
        let error = transcript.wait_for(0, "more", soon()).unwrap_err();
        assert!(
            error.to_string().contains("ended before \"more\""),
            "{error}"
        );
        assert!(error.to_string().ends_with("last words"), "{error}");
    }
}
