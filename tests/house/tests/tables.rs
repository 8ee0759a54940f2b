//! A list of what is held by tests is worth something only while those tests exist: docs/crash-matrix.md and the reasons of events are
//! compared with the code.

use std::fs;
use std::path::{Path, PathBuf};

const TABLE: &str = "docs/crash-matrix.md";
/// Its tests are about nothing else, so each has to be in the table.
const ALL_OF: &str = "tests/cluster/tests/crashes.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace exists")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Tests named as `path::name`.
fn named(table: &str) -> Vec<(&str, &str)> {
    let quoted = table.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.split_once("::")).collect()
}

#[test]
fn crash_matrix_names_tests_that_exist() {
    let table = read(TABLE);
    let named = named(&table);
    assert!(named.len() > 20, "the table is not read right: {named:?}");
    for (path, test) in named {
        let there = read(path).contains(&format!("fn {test}("));
        assert!(there, "{path} has no test {test}");
    }
}

#[test]
fn crash_matrix_names_every_test_of_crashes() {
    let table = read(TABLE);
    let named = named(&table);
    let source = read(ALL_OF);
    let list = source
        .split_once("tests!(on Lab:")
        .expect("a list of tests")
        .1;
    let list = list.split_once(");").expect("an end of it").0;
    for test in list
        .split(',')
        .map(str::trim)
        .filter(|test| !test.is_empty())
    {
        let is_named = named.contains(&(ALL_OF, test));
        assert!(is_named, "{test} is not in {TABLE}");
    }
}

/// All sources outside `api`, each as its product part and its test part.
fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "api"].contains(&&*name) {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("readable source");
            let below = path.strip_prefix(root()).expect("below the root");
            let is_test = below.iter().any(|part| part == "tests") || name == "tests.rs";
            let at = if is_test {
                Some(0)
            } else {
                text.find("#[cfg(test)]")
            };
            let (product, test) = text.split_at(at.unwrap_or(text.len()));
            found.push((product.to_owned(), test.to_owned()));
        }
    }
}

#[test]
fn each_event_is_announced_somewhere_and_waited_for_by_a_test() {
    let reasons = read("api/src/events.rs");
    let reasons = reasons.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("pub const ")?.split_once(": &str = \"")?;
        Some((name, rest.strip_suffix("\";")?))
    });
    let mut found = Vec::new();
    sources(&root(), &mut found);
    let mut count = 0;
    for (name, reason) in reasons {
        let constant = format!("events::{name}");
        let literal = format!("\"{reason}\"");
        let announced = found.iter().any(|(product, _)| product.contains(&constant));
        let mut tests = found.iter().map(|(_, test)| test);
        let tested = tests.any(|test| test.contains(&constant) || test.contains(&literal));
        assert!(announced, "{reason} is never announced");
        assert!(tested, "no test knows {reason}");
        count += 1;
    }
    assert!(count > 20, "the list of reasons is not read right");
}
