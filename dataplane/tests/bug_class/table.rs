//! The table and the tests are one: docs/bug-class.md names only what exists, and every test here.

use std::path::{Path, PathBuf};

/// What the name of a row's test begins with.
const PREFIX: &str = "spdk_";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Tests named as `path::name`.
fn named(table: &str) -> Vec<(PathBuf, &str)> {
    let quoted = table.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|name| name.split_once("::"));
    names
        .map(|(path, test)| {
            let path = path.replace("bug_class/", "dataplane/tests/bug_class/");
            (root().join(path), test)
        })
        .collect()
}

#[test]
fn table_names_what_exists_and_all_of_it() {
    let table = read(&root().join("docs/bug-class.md"));
    let named = named(&table);
    for (path, test) in &named {
        let there = read(path).contains(&format!("fn {test}("));
        assert!(there, "{} has no test {test}", path.display());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bug_class");
    for file in std::fs::read_dir(here).unwrap() {
        let source = read(&file.unwrap().path());
        for test in source.split(&format!("fn {PREFIX}")).skip(1) {
            let test = format!("{PREFIX}{}", test.split('(').next().unwrap());
            assert!(
                named.iter().any(|(_, name)| *name == test),
                "{test} is not in docs/bug-class.md"
            );
        }
    }
}
