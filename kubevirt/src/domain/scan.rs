//! Walks the text once and notes where the few elements stand that matter.
//!
//! The text may come from anywhere, so document types and entities beyond XML's own five are refused, depth and the number of
//! noted elements are bounded, and every attribute is checked, also of elements that are none of our business.

use super::error::DomainError;
use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use std::ops::Range;

/// A machine's description is some ten deep.
const DEPTH_MAX: usize = 64;
/// A machine with a hundred disks has a few thousand.
const NOTED_MAX: usize = 65_536;
/// Where the elements stand that are noted with all that is in them.
const NOTED: &[&[&str]] = &[
    &["domain", "vcpu"],
    &["domain", "memoryBacking"],
    &["domain", "launchSecurity"],
    &["domain", "devices", "disk"],
];

/// An element and where it stands.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    /// From its `<` to behind its end.
    pub(super) whole: Range<usize>,
    /// From behind its start tag to behind its end.
    inner: Range<usize>,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The value, without escapes.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(super) fn alias(&self) -> Option<&str> {
        self.child("alias")?.attribute("name")
    }
}

/// The element's own text, with its tags.
pub(super) fn text<'x>(xml: &'x str, element: &Element) -> &'x str {
    &xml[element.whole.clone()]
}

/// What was found.
#[derive(Debug)]
pub(super) struct Scan {
    noted: Vec<Element>,
    /// Where `</domain>` begins.
    pub(super) end: usize,
}

impl Scan {
    pub(super) fn disks(&self) -> impl Iterator<Item = &Element> {
        self.named("disk")
    }

    pub(super) fn memory_backing(&self) -> Result<Option<&Element>, DomainError> {
        let mut found = self.named("memoryBacking");
        let first = found.next();
        match found.next() {
            Some(second) => Err(malformed(
                "there is a second memoryBacking",
                second.whole.start,
            )),
            None => Ok(first),
        }
    }

    /// The kind of memory encryption, as in `sev`.
    pub(super) fn launch_security(&self) -> Option<String> {
        let found = self.named("launchSecurity").next()?;
        Some(found.attribute("type").unwrap_or("unknown").to_owned())
    }

    /// Virtual CPUs; 1 if it is not said, as libvirt reads it.
    pub(super) fn cpus(&self, xml: &str) -> u32 {
        let text = self
            .named("vcpu")
            .next()
            .map_or("", |vcpu| &xml[vcpu.inner.clone()]);
        let number = text
            .trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next();
        number.and_then(|digits| digits.parse().ok()).unwrap_or(1)
    }

    fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Element> {
        self.noted
            .iter()
            .filter(move |element| element.name == name)
    }
}

/// Walks the text.
///
/// # Errors
/// [`DomainError::Malformed`] when it is not one well-formed `domain` element.
pub(super) fn scan(xml: &str) -> Result<Scan, DomainError> {
    let mut walk = Walk {
        reader: Reader::from_str(xml),
        path: Vec::new(),
        open: Vec::new(),
        noted: Vec::new(),
        count: 0,
        end: None,
    };
    while walk.step()? {}
    walk.finish()
}

struct Walk<'x> {
    reader: Reader<&'x [u8]>,
    /// Names from the root down to where the walk is.
    path: Vec<String>,
    /// Noted elements whose end has not come yet, the outermost first.
    open: Vec<Element>,
    noted: Vec<Element>,
    count: usize,
    end: Option<usize>,
}

impl Walk<'_> {
    /// Takes one event; false at the end of the text.
    fn step(&mut self) -> Result<bool, DomainError> {
        let before = offset(self.reader.buffer_position());
        let event = self
            .reader
            .read_event()
            .map_err(|error| malformed(&error.to_string(), offset(self.reader.error_position())))?;
        let at = before..offset(self.reader.buffer_position());
        match event {
            Event::Start(tag) => self.enter(&tag, at)?,
            Event::Empty(tag) => {
                self.enter(&tag, at.clone())?;
                self.leave(&(at.end..at.end));
            }
            Event::End(_) => self.leave(&at),
            Event::DocType(_) => return Err(malformed("a document type is not allowed", before)),
            Event::GeneralRef(name) => check_reference(&name, before)?,
            Event::Text(_) | Event::CData(_) if self.path.is_empty() => {
                self.check_blank(&event, before)?;
            }
            Event::Eof => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn enter(&mut self, tag: &BytesStart<'_>, at: Range<usize>) -> Result<(), DomainError> {
        let name = tag.name().as_ref().to_owned();
        let attributes = attributes(tag, at.start)?;
        if self.path.is_empty() && (name != "domain" || self.end.is_some()) {
            return Err(malformed("the root is not one domain element", at.start));
        }
        if self.path.len() == DEPTH_MAX {
            return Err(malformed("it is nested too deeply", at.start));
        }
        self.path.push(name.clone());
        let wanted = || NOTED.iter().any(|path| self.path == *path);
        if self.open.is_empty() && !wanted() {
            return Ok(());
        }
        self.count += 1;
        if self.count > NOTED_MAX {
            return Err(malformed("it has too many disks", at.start));
        }
        self.open.push(Element {
            name,
            attributes,
            inner: at.end..at.end,
            whole: at,
            children: Vec::new(),
        });
        Ok(())
    }

    fn leave(&mut self, at: &Range<usize>) {
        self.path.pop();
        if self.path.is_empty() {
            self.end = Some(at.start);
        }
        let Some(mut element) = self.open.pop() else {
            return;
        };
        element.whole.end = at.end;
        element.inner.end = at.start;
        let parent = self
            .open
            .last_mut()
            .map_or(&mut self.noted, |parent| &mut parent.children);
        parent.push(element);
    }

    fn check_blank(&self, event: &Event<'_>, at: usize) -> Result<(), DomainError> {
        let blank = match event {
            Event::Text(text) => text
                .chars()
                .all(|c| c.is_ascii_whitespace() || c == '\u{feff}'),
            _ => false,
        };
        if blank {
            Ok(())
        } else {
            Err(malformed("there is text outside the domain", at))
        }
    }

    fn finish(self) -> Result<Scan, DomainError> {
        let here = offset(self.reader.buffer_position());
        let unfinished = || malformed("it ends before the domain does", here);
        let end = self
            .end
            .filter(|_| self.path.is_empty())
            .ok_or_else(unfinished)?;
        Ok(Scan {
            noted: self.noted,
            end,
        })
    }
}

fn attributes(tag: &BytesStart<'_>, at: usize) -> Result<Vec<(String, String)>, DomainError> {
    let mut found = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| malformed(&error.to_string(), at))?;
        let value = attribute
            .normalized_value(XmlVersion::Explicit1_0)
            .map_err(|error| malformed(&error.to_string(), at))?;
        found.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(found)
}

/// A number, or one of the five that need no declaration.
fn check_reference(name: &BytesRef<'_>, at: usize) -> Result<(), DomainError> {
    let known = ["amp", "lt", "gt", "apos", "quot"].contains(&name.as_ref());
    let number = name.is_char_ref() && matches!(name.resolve_char_ref(), Ok(Some(_)));
    if known || number {
        return Ok(());
    }
    Err(malformed("an entity is not allowed", at))
}

fn malformed(why: &str, offset: usize) -> DomainError {
    DomainError::Malformed {
        why: why.to_owned(),
        offset,
    }
}

/// Positions in a text that is in memory fit.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
