//! docs/kubevirt.md, taken apart.

use anyhow::Context;

pub(crate) const PAGE: &str = include_str!("../../../../docs/kubevirt.md");

/// What stands below a heading, up to the next one.
pub(crate) fn section(heading: &str) -> anyhow::Result<&'static str> {
    let parts = PAGE.split("\n## ").flat_map(|part| part.split("\n### "));
    let mut parts = parts.filter_map(|part| part.split_once('\n'));
    let found = parts.find(|(line, _)| *line == heading);
    let (_, text) = found.with_context(|| format!("the page has no heading {heading:?}"))?;
    Ok(text)
}

/// The fenced blocks of a language.
pub(crate) fn blocks(text: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = text.split(fence.as_str()).skip(1);
    parts
        .filter_map(|part| Some(part.split_once("```")?.0))
        .collect()
}

/// All that stands between backticks in running text.
pub(crate) fn code() -> impl Iterator<Item = &'static str> {
    // Blocks are every other part, and so is code in what is left.
    let prose = PAGE.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2))
}
