//! The raw engine's sockets and threads on real interfaces of network namespaces. Needs root; without it every test
//! counts as ignored.

#[path = "../lab/mod.rs"]
mod lab;

mod sockets;
mod threads;
mod wire;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// A test: its name says what the product does.
type Test = (&'static str, fn());

/// Names a module's tests by their functions.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        &[$((stringify!($name), $name as fn())),+]
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let skip = lab::why_not_packets();
    if let Some(reason) = &skip {
        eprintln!("SKIPPED: every test of this suite: {reason}");
    }
    let areas: &[(&str, &[Test])] = &[("sockets", sockets::TESTS), ("threads", threads::TESTS)];
    let trials = (areas.iter())
        .flat_map(|(area, tests)| tests.iter().map(move |test| (area, test)))
        .map(|(area, (name, test))| {
            let (test, skip) = (*test, skip.clone());
            Trial::ignorable_test(format!("{area}::{name}"), move || match skip {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => {
                    test();
                    Ok(Completion::Completed)
                }
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
