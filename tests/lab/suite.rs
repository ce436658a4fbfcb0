//! What every suite of the lab shares: tests by the names of their functions, counted as ignored where they cannot run.
#![allow(unused_macros, unused_imports, reason = "each suite uses its part of the lab")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// A test: its name says what the product does.
pub type Test = (&'static str, fn());

/// Names a module's tests by their functions.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        &[$((stringify!($name), $name as fn())),+]
    };
}
pub(crate) use tests;

/// Runs a suite's areas; if the whole suite cannot run here, says so, and every test counts as ignored.
pub fn run(skip: Option<&str>, areas: &[(&str, &[Test])]) -> ExitCode {
    announce(skip);
    let tests = areas
        .iter()
        .flat_map(|(area, tests)| tests.iter().map(move |test| (area, test)));
    let trials = tests
        .map(|(area, (name, test))| trial(area, name, *test, skip.map(str::to_owned)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Says loudly why a whole suite cannot run.
pub fn announce(skip: Option<&str>) {
    if let Some(reason) = skip {
        eprintln!("SKIPPED: every test of this suite: {reason}");
    }
}

/// One test of an area; ignored, and counted so, for a reason.
pub fn trial(area: &str, name: &str, test: fn(), skip: Option<String>) -> Trial {
    Trial::ignorable_test(format!("{area}::{name}"), move || match skip {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => {
            test();
            Ok(Completion::Completed)
        }
    })
}
