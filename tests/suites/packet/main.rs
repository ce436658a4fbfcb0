//! The packet modes, shown with real traffic in the lab. Needs root; without it every test counts as ignored.
//!
//! `CONVEY_PACKET_SUBJECT=kernel` runs the suite against nftables in Convey's place: what fails then is the suite's own
//! fault. Tests of what only Convey does are ignored then.

#[path = "../../lab/mod.rs"]
mod lab;

mod classic;
mod explain;
mod faults;
mod harness;
mod hostile;
mod interfaces;
mod kept;
mod limits;
mod process;
mod reload;
mod site;
mod sizes;
mod talkers;
mod told;
mod traffic;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// Who can pass a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Any load balancer: the kernel in Convey's place too.
    Any,
    /// Convey alone.
    Convey,
}

/// A test: its name says what the product does.
type Test = (&'static str, For, fn());

/// Names a module's tests by their functions.
macro_rules! tests {
    ($($who:ident: $name:ident),+ $(,)?) => {
        &[$((stringify!($name), crate::For::$who, $name as fn())),+]
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    if let Some(code) = lab::crowd::run_if_asked() {
        return code;
    }
    let arguments = Arguments::from_args();
    let skip = lab::why_not_packets();
    if let Some(reason) = &skip {
        eprintln!("SKIPPED: every test of this suite: {reason}");
    }
    let areas: &[(&str, &[Test])] = &[
        // the long ones first: the end is not theirs alone then
        ("limits", limits::TESTS),
        ("kept", kept::TESTS),
        ("reload", reload::TESTS),
        ("harness", harness::TESTS),
        ("traffic", traffic::TESTS),
        ("sizes", sizes::TESTS),
        ("hostile", hostile::TESTS),
        ("interfaces", interfaces::TESTS),
        ("faults", faults::TESTS),
        ("process", process::TESTS),
        ("explain", explain::TESTS),
        ("classic", classic::TESTS),
    ];
    let trials = areas
        .iter()
        .flat_map(|(area, tests)| tests.iter().map(move |test| (area, test)))
        .map(|(area, (name, who, test))| {
            let test = *test;
            let skip = skip.clone().or_else(|| {
                (site::kernel_in_place() && *who == For::Convey)
                    .then(|| "the kernel stands in for Convey".to_owned())
            });
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
