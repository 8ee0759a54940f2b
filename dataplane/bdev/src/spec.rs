//! Devices named on the command line: `malloc:size=1GiB`, `null:size=1TiB`, `uring:path=F,readonly`.

use crate::{BdevError, BlockDevice, Malloc, Null, Nvme, Uring, UringOptions};
use std::sync::Arc;

/// Opens the device that `spec` describes: `malloc:size=S`, `null:size=S`, `uring:path=F[,readonly]` or
/// `nvme:path=F[,readonly]`, each with `,block_size=512` or `4096` if wanted. Sizes are as for [`parse_size`]; a path has no comma.
///
/// # Errors
/// [`BdevError::Spec`] if the text is not such a description or asks for what no device can have; else what
/// [`Uring::open`] says.
pub fn from_spec(spec: &str) -> Result<Arc<dyn BlockDevice>, BdevError> {
    let refused = |why: String| BdevError::Spec {
        spec: spec.to_owned(),
        why,
    };
    let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
    let mut keys = Keys::new(rest).map_err(refused)?;
    let device = match kind {
        "malloc" | "null" => memory(kind, &mut keys),
        "uring" | "nvme" => path(kind, &mut keys),
        other => {
            return Err(refused(format!(
                "unknown kind {other:?}; use malloc, null, uring or nvme"
            )));
        }
    };
    let open = device.and_then(|open| keys.check_empty(kind).map(|()| open));
    // Nothing is opened before the whole text is understood.
    open.map_err(refused)?().map_err(|error| match error {
        BdevError::Invalid { what, why } => refused(format!("{what}: {why}")),
        other => other,
    })
}

/// A number of bytes: `4096`, or with one of KiB, MiB, GiB, TiB, PiB, EiB: `4KiB`.
///
/// # Errors
/// [`BdevError::Spec`] if the text is no such number, or it does not fit into 64 bits.
pub fn parse_size(text: &str) -> Result<u64, BdevError> {
    size(text).map_err(|why| BdevError::Spec {
        spec: text.to_owned(),
        why,
    })
}

type Open = Box<dyn FnOnce() -> Result<Arc<dyn BlockDevice>, BdevError>>;

fn memory(kind: &str, keys: &mut Keys<'_>) -> Result<Open, String> {
    let size_bytes = size(keys.required("size", kind)?)?;
    let block_size = keys.block_size()?.unwrap_or(512);
    Ok(if kind == "malloc" {
        Box::new(move || Ok(Arc::new(Malloc::new(size_bytes, block_size)?)))
    } else {
        Box::new(move || Ok(Arc::new(Null::new(size_bytes, block_size)?)))
    })
}

fn path(kind: &str, keys: &mut Keys<'_>) -> Result<Open, String> {
    let path = keys.required("path", kind)?.to_owned();
    let options = UringOptions {
        readonly: keys.flag("readonly")?,
        block_size: keys.block_size()?,
    };
    Ok(if kind == "nvme" {
        Box::new(move || Ok(Arc::new(Nvme::open(path, options)?)))
    } else {
        Box::new(move || Ok(Arc::new(Uring::open(path, options)?)))
    })
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let units = ["", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = units.iter().position(|known| *known == unit);
    let (Some(power), false) = (power, number.is_empty()) else {
        return Err(format!(
            "{text:?} is not a size; write bytes or a number with KiB, MiB, GiB or TiB, as in 4GiB"
        ));
    };
    let number: Option<u64> = number.parse().ok();
    let factor = 1u64 << (10 * power);
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is too large; a device has at most 1 PiB"))
}

/// What follows the kind: `key=value` and bare flags, each at most once.
struct Keys<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Keys<'a> {
    fn new(text: &'a str) -> Result<Keys<'a>, String> {
        let mut keys: Vec<(&str, Option<&str>)> = Vec::new();
        for item in text.split(',').filter(|_| !text.is_empty()) {
            let (key, value) = match item.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (item, None),
            };
            if keys.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key:?} is there twice; give it once"));
            }
            keys.push((key, value));
        }
        Ok(Keys(keys))
    }

    fn take(&mut self, key: &str) -> Option<Option<&'a str>> {
        let at = self.0.iter().position(|(known, _)| *known == key)?;
        Some(self.0.remove(at).1)
    }

    fn value(&mut self, key: &str) -> Result<Option<&'a str>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Some(value)) if !value.is_empty() => Ok(Some(value)),
            Some(_) => Err(format!("{key:?} has no value; write {key}=...")),
        }
    }

    fn required(&mut self, key: &str, kind: &str) -> Result<&'a str, String> {
        let missing = || format!("a {kind} device needs {key:?}; write {kind}:{key}=...");
        self.value(key)?.ok_or_else(missing)
    }

    fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(_)) => Err(format!(
                "{key:?} takes no value; write it alone or leave it out"
            )),
        }
    }

    fn block_size(&mut self) -> Result<Option<u32>, String> {
        match self.value("block_size")? {
            None => Ok(None),
            Some("512") => Ok(Some(512)),
            Some("4096" | "4KiB") => Ok(Some(4096)),
            Some(other) => Err(format!(
                "block size {other:?} is not known; use 512 or 4096"
            )),
        }
    }

    fn check_empty(&self, kind: &str) -> Result<(), String> {
        let Some((key, _)) = self.0.first() else {
            return Ok(());
        };
        let known = match kind {
            "uring" | "nvme" => "path, readonly, block_size",
            _ => "size, block_size",
        };
        Err(format!(
            "a {kind} device knows no {key:?}; it knows {known}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(spec: &str) -> String {
        match from_spec(spec) {
            Err(BdevError::Spec { why, .. }) => why,
            other => panic!("{spec}: {other:?}"),
        }
    }

    #[test]
    fn size_with_unit_is_that_many_bytes() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("3KiB", 3 << 10),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes);
        }
        for text in [
            "",
            "GiB",
            "1GB",
            "1 GiB",
            "-1",
            "0x10",
            "1.5GiB",
            "17EiB",
            "99999999999999999999",
        ] {
            assert!(
                matches!(parse_size(text), Err(BdevError::Spec { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn memory_device_has_the_size_and_block_size_asked_for() {
        let device = from_spec("malloc:size=2MiB,block_size=4096")
            .unwrap()
            .info();
        assert_eq!(
            (device.kind, device.size_bytes, device.block_size),
            ("malloc", 2 << 20, 4096)
        );
        let device = from_spec("null:size=1TiB").unwrap().info();
        assert_eq!(
            (device.kind, device.size_bytes, device.block_size),
            ("null", 1 << 40, 512)
        );
    }

    #[test]
    fn bad_spec_is_refused_with_what_would_be_right() {
        let cases = [
            ("", "unknown kind \"\""),
            ("floppy:size=1", "use malloc, null, uring or nvme"),
            ("malloc", "malloc:size=..."),
            ("malloc:", "malloc:size=..."),
            ("malloc:size", "has no value"),
            ("malloc:size=", "has no value"),
            ("malloc:size=0", "at least one block"),
            ("malloc:size=1", "multiple of the block size"),
            ("null:size=1EiB", "at most 1 PiB"),
            ("null:size=16EiB", "at most 1 PiB"),
            ("malloc:size=1MiB,size=2MiB", "twice"),
            (
                "malloc:size=1MiB,color=red",
                "knows no \"color\"; it knows size, block_size",
            ),
            ("malloc:size=1MiB,", "knows no \"\""),
            ("malloc:size=1MiB,block_size=1024", "use 512 or 4096"),
            ("uring:readonly", "uring:path=..."),
            ("uring:path=/x,readonly=yes", "takes no value"),
            ("uring:path=/x,size=1MiB", "knows no \"size\""),
            ("nvme:readonly", "nvme:path=..."),
            ("nvme:path=/dev/null", "use kind uring"),
        ];
        for (spec, expected) in cases {
            let why = why(spec);
            assert!(
                why.contains(expected),
                "{spec:?}: {why:?} does not say {expected:?}"
            );
        }
    }

    #[test]
    fn file_that_is_not_there_is_named() {
        let error = from_spec("uring:path=/nonexistent/disk").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/disk"), "{error}");
    }
}
