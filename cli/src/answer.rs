//! What a call came to, for people and for programs.

use crate::args::Output;
use anyhow::{Context, anyhow};
use serde_json::Value;
use std::io::Write;
use tonic::Status;

/// The result of a call in both forms.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Lines, without a final newline. Nothing is printed if empty.
    pub(crate) text: String,
    pub(crate) json: Value,
    /// What to end with an error for, although the call was answered.
    pub(crate) objection: Option<String>,
}

impl Answer {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self {
            text: text.into(),
            json,
            objection: None,
        }
    }

    /// Of a call that answers nothing but success.
    pub(crate) fn done() -> Self {
        Self::new("", Value::Object(serde_json::Map::new()))
    }

    pub(crate) fn objecting(mut self, objection: Option<String>) -> Self {
        self.objection = objection;
        self
    }

    pub(crate) fn print(self, output: Output) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match output {
            Output::Text if self.text.is_empty() => Ok(()),
            Output::Text => writeln!(out, "{}", self.text),
            Output::Json => writeln!(out, "{:#}", self.json),
        }
        .context("cannot write to standard output")?;
        self.objection
            .map_or(Ok(()), |objection| Err(anyhow!(objection)))
    }
}

/// A status as CSI writes it: `ALREADY_EXISTS: message`.
pub(crate) fn explain(status: &Status) -> anyhow::Error {
    let mut code = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_ascii_uppercase() && !code.is_empty() {
            code.push('_');
        }
        code.push(letter.to_ascii_uppercase());
    }
    anyhow!("{code}: {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_written_as_csi_writes_it() {
        let cases = [
            (Status::already_exists("x"), "ALREADY_EXISTS: x"),
            (Status::not_found("y"), "NOT_FOUND: y"),
            (Status::internal(""), "INTERNAL: "),
        ];
        for (status, text) in cases {
            assert_eq!(explain(&status).to_string(), text);
        }
    }
}
