//! Runs the tests of one program, one after the other, on one control plane that is brought up once.
//!
//! Cargo's own runner cannot: it has no place to end what all tests share, and no word for "skipped here".

mod namespace;

use crate::{Plane, kit};
use futures::future::LocalBoxFuture;
use std::process::ExitCode;
use std::time::Instant;

/// What the tests of one program share. It is set once, and gone when the last of them has ended.
pub trait Stage: Sized {
    /// Whether processes on it mount: then all runs in a mount namespace of its own, so that no mount stays.
    const MOUNTS: bool;

    /// Sets it.
    fn set() -> LocalBoxFuture<'static, anyhow::Result<Self>>;

    /// Why it cannot be set on this machine; `None` if it can.
    ///
    /// # Errors
    /// If it could after `cargo xtask setup`.
    fn reason_to_skip() -> anyhow::Result<Option<String>> {
        kit::reason_to_skip()
    }

    /// The control plane in it, if there is one.
    fn plane(&mut self) -> Option<&mut Plane> {
        None
    }

    /// What helps to understand why a test failed.
    fn explain(&self) -> String {
        String::new()
    }
}

impl Stage for Plane {
    const MOUNTS: bool = false;

    fn set() -> LocalBoxFuture<'static, anyhow::Result<Plane>> {
        Box::pin(Plane::start())
    }

    fn plane(&mut self) -> Option<&mut Plane> {
        Some(self)
    }
}

/// A test: its name, and what it does on the stage.
pub struct Test<S> {
    /// As in `situation_result`.
    pub name: &'static str,
    /// Too long for every day: runs only with `--ignored` or `--include-ignored`.
    pub ignored: bool,
    /// The test itself.
    pub body: for<'a> fn(&'a mut S) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

/// Makes a `main` that runs the async functions named: `tests!(one, two; ignored: three)`. Each takes `&mut Plane`, or
/// `&mut Lab` with `tests!(on Lab: one, two)`.
#[macro_export]
macro_rules! tests {
    (on $stage:ty: $($name:ident),* $(,)? $(; ignored: $($long:ident),+ $(,)?)?) => {
        fn main() -> std::process::ExitCode {
            $crate::runner::run::<$stage>(&[
                $($crate::tests!(@test $name, false),)*
                $($($crate::tests!(@test $long, true),)+)?
            ])
        }
    };
    (@test $name:ident, $ignored:literal) => {
        $crate::runner::Test {
            name: stringify!($name),
            ignored: $ignored,
            body: |stage| Box::pin($name(stage)),
        }
    };
    ($($name:ident),+ $(,)? $(; ignored: $($long:ident),+ $(,)?)?) => {
        $crate::tests!(on $crate::Plane: $($name),+ $(; ignored: $($long),+)?);
    };
}

/// How the tests ended.
#[derive(Debug, Default)]
struct Sum {
    passed: usize,
    failed: usize,
    ignored: usize,
    filtered: usize,
}

/// What cargo's runner understands of the command line, as far as it is needed here.
struct Asked {
    list: bool,
    ignored: bool,
    others: bool,
    exact: bool,
    words: Vec<String>,
}

/// Runs those of `tests` that the command line asks for. Prints what cargo's own runner would.
pub fn run<S: Stage>(tests: &[Test<S>]) -> ExitCode {
    let asked = Asked::read(std::env::args().skip(1));
    let (mine, rest): (Vec<_>, Vec<_>) = tests.iter().partition(|test| asked.names(test.name));
    if asked.list {
        mine.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let (chosen, ignored): (Vec<_>, Vec<_>) =
        mine.into_iter().partition(|t| asked.wants(t.ignored));
    let mut sum = Sum {
        ignored: ignored.len(),
        filtered: rest.len(),
        ..Sum::default()
    };
    if !chosen.is_empty() {
        match reason_to_skip::<S>() {
            Ok(None) if S::MOUNTS && !namespace::entered() => return namespace::enter(),
            Ok(None) => play(&chosen, &mut sum),
            Ok(Some(why)) => {
                println!("skipped: {why}");
                sum.ignored += chosen.len();
            }
            Err(why) => sum.all_failed(chosen.len(), &why),
        }
    }
    sum.print();
    ExitCode::from(u8::from(sum.failed > 0))
}

fn reason_to_skip<S: Stage>() -> anyhow::Result<Option<String>> {
    let reason = S::reason_to_skip()?;
    Ok(reason.or_else(|| {
        let refused = S::MOUNTS && !namespace::possible();
        refused
            .then(|| "mounting is not permitted here, and publishing a volume needs it".to_owned())
    }))
}

fn play<S: Stage>(tests: &[&Test<S>], sum: &mut Sum) {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(why) => return sum.all_failed(tests.len(), &why.into()),
    };
    runtime.block_on(async {
        let since = Instant::now();
        let mut stage = match S::set().await {
            Ok(stage) => stage,
            Err(why) => return sum.all_failed(tests.len(), &why),
        };
        println!(
            "the stage is set after {:.1} s",
            since.elapsed().as_secs_f64()
        );
        for test in tests {
            let since = Instant::now();
            let outcome = (test.body)(&mut stage).await;
            let outcome = outcome.map_err(|why| format!("{why:?}\n{}", stage.explain()));
            sum.note(test.name, outcome, since);
        }
        if let Some(plane) = stage.plane().filter(|_| sum.failed > 0) {
            plane.keep_folder();
            println!("logs are in {}", plane.logs().display());
        }
    });
}

impl Sum {
    fn note(&mut self, name: &str, outcome: Result<(), String>, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
            }
            Err(why) => {
                self.failed += 1;
                println!("test {name} ... FAILED ({seconds:.1} s)\n{why}");
            }
        }
    }

    fn all_failed(&mut self, tests: usize, why: &anyhow::Error) {
        println!("the stage cannot be set: {why:?}");
        self.failed += tests;
    }

    fn print(&self) {
        println!(
            "test result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out",
            if self.failed == 0 { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.ignored,
            self.filtered
        );
    }
}

impl Asked {
    fn read(words: impl Iterator<Item = String>) -> Asked {
        let (flags, words): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with('-'));
        let has = |flag: &str| flags.iter().any(|f| f == flag);
        Asked {
            list: has("--list"),
            ignored: has("--ignored") || has("--include-ignored"),
            others: !has("--ignored"),
            exact: has("--exact"),
            words,
        }
    }

    fn names(&self, name: &str) -> bool {
        let fits = |word: &String| name == word || !self.exact && name.contains(word.as_str());
        self.words.is_empty() || self.words.iter().any(fits)
    }

    fn wants(&self, ignored: bool) -> bool {
        if ignored { self.ignored } else { self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Asked {
        Asked::read(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn long_tests_run_only_when_asked_for() {
        let (none, long) = (asked(&[]), asked(&["--ignored"]));
        let all = asked(&["--include-ignored"]);
        assert_eq!((none.wants(true), none.wants(false)), (false, true));
        assert_eq!((long.wants(true), long.wants(false)), (true, false));
        assert_eq!((all.wants(true), all.wants(false)), (true, true));
    }

    #[test]
    fn words_choose_tests_by_a_part_of_their_name() {
        assert!(asked(&["race"]).names("two_pods_race"));
        assert!(!asked(&["race", "--exact"]).names("two_pods_race"));
        assert!(asked(&["--nocapture"]).names("two_pods_race"));
    }
}
