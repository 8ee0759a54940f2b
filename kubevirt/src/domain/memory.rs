//! The guest's memory: whoever serves a disk on a socket reads and writes it in place, so it must be shared.

use super::error::DomainError;
use super::scan::Scan;
use super::{Edit, scan};

const SHARED: &str = "<source type='memfd'/><access mode='shared'/>";
/// What says the same thing, and is replaced.
const REPLACED: &[&str] = &["source", "access"];

/// Shares the memory and keeps everything else that is said about it, huge pages above all.
pub(super) fn edit(xml: &str, scan: &Scan) -> Result<Edit, DomainError> {
    let Some(there) = scan.memory_backing()? else {
        let at = scan.end..scan.end;
        let text = format!("<memoryBacking>{SHARED}</memoryBacking>");
        return Ok(Edit { at, text });
    };
    let kept = there
        .children
        .iter()
        .filter(|child| !REPLACED.contains(&child.name.as_str()));
    let kept: String = kept.map(|child| scan::text(xml, child)).collect();
    let text = format!("<memoryBacking>{kept}{SHARED}</memoryBacking>");
    let at = there.whole.clone();
    Ok(Edit { at, text })
}
