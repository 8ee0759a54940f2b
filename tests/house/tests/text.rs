//! Holds the rules about the text itself: where `unsafe` may stand, how long files and functions may be.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms inside rooms where `unsafe` is allowed, and why. Adding a row is a decision.
const UNSAFE_ROOMS: &[(&str, &str)] = &[
    (
        "dataplane/ring/src/",
        "guest memory and ring words are raw memory shared with the guest",
    ),
    (
        "dataplane/bdev/src/",
        "io_uring submission and copies to and from guest buffers",
    ),
    (
        "dataplane/src/reactor/",
        "hands guest buffers to a block device",
    ),
    (
        "dataplane/src/clock.rs",
        "reads the processor's time stamp counter",
    ),
    (
        "dataplane/testkit/src/",
        "the driver side of guest memory, tests only",
    ),
];

/// A file may not be longer than this, tests left out.
const FILE_LINES_MAX: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace exists")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    rust_files(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("readable source");
            (
                path.strip_prefix(&root)
                    .expect("below the root")
                    .display()
                    .to_string(),
                text,
            )
        })
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.starts_with("fuzz/")
}

/// The part of a file before its first test module.
fn product_part(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
}

fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
        .iter()
        .any(|word| code.contains(word))
}

#[test]
fn unsafe_stands_only_in_the_named_rooms() {
    let strays: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .filter(|(path, _)| !UNSAFE_ROOMS.iter().any(|(room, _)| path.starts_with(room)))
        .filter(|(_, text)| text.lines().any(uses_unsafe))
        .map(|(path, _)| path.clone())
        .collect();
    assert!(
        strays.is_empty(),
        "unsafe outside the named rooms: {strays:#?}"
    );
}

#[test]
fn crate_without_unsafe_room_forbids_unsafe() {
    for (path, text) in sources() {
        let is_root = path.ends_with("src/lib.rs") || path == "cli/src/main.rs";
        let has_room = UNSAFE_ROOMS.iter().any(|(room, _)| {
            path.starts_with(&room[..room.find("src/").expect("a room names a src folder") + 4])
        });
        if is_root && !path.starts_with("fuzz/") {
            let wanted = if has_room {
                "deny(unsafe_code)"
            } else {
                "forbid(unsafe_code)"
            };
            assert!(text.contains(wanted), "{path} must say #![{wanted}]");
        }
    }
}

#[test]
fn file_is_short_enough_to_hold_in_one_head() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| (path, product_part(text).count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert!(
        long.is_empty(),
        "files past {FILE_LINES_MAX} lines; is there a second room inside? {long:#?}"
    );
}

#[test]
fn file_says_first_why_it_exists() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path.clone())
        .collect();
    assert!(
        silent.is_empty(),
        "files without a reason in their first line: {silent:#?}"
    );
}

#[test]
fn product_code_does_not_unwrap() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        if is_test_file(&path)
            || path.contains("testkit/")
            || path.starts_with("tests/")
            || path.starts_with("xtask/")
        {
            continue;
        }
        for (number, line) in product_part(&text).enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(".unwrap()")
                || code.contains("todo!(")
                || code.contains("unimplemented!(")
            {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "unwrap outside tests: {found:#?}");
}
