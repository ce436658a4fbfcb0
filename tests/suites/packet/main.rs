//! The packet modes, shown with real traffic in the lab. Needs root; without it every test counts as ignored.
//!
//! `CONVEY_PACKET_ENGINE=xdp` (or `xdp-native`) runs it with that engine, which has a few tests of its own in any case.
//!
//! `CONVEY_PACKET_SUBJECT=kernel` runs the suite against nftables in Convey's place: what fails then is the suite's own
//! fault. Tests of what only Convey does are ignored then.

#[path = "../../lab/mod.rs"]
mod lab;

mod access;
mod afterwards;
mod alerts;
mod classic;
mod crowding;
mod discovered;
mod errors;
mod explain;
mod faults;
mod gateways;
mod harness;
mod holder;
mod hostile;
#[cfg(feature = "import")]
mod imported;
mod interfaces;
mod kept;
mod l2;
mod limits;
mod meanwhile;
mod modes;
mod networks;
mod off_path;
mod ports;
mod process;
mod ranges;
mod reload;
mod reused;
mod site;
mod sizes;
mod soak;
mod sources;
mod store;
mod survival;
mod talkers;
mod told;
mod traffic;
mod xdp;

use std::process::ExitCode;

use libtest_mimic::Arguments;

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
    let skip = lab::why_not_packets();
    lab::suite::announce(skip.as_deref());
    let areas: &[(&str, &[Test])] = &[
        // the long ones first: the end is not theirs alone then
        ("soak", soak::TESTS),
        ("limits", limits::TESTS),
        ("xdp", xdp::TESTS),
        ("survival", survival::TESTS),
        ("afterwards", afterwards::TESTS),
        ("store", store::TESTS),
        ("access", access::TESTS),
        ("kept", kept::TESTS),
        ("crowding", crowding::TESTS),
        ("reused", reused::TESTS),
        ("alerts", alerts::TESTS),
        ("reload", reload::TESTS),
        ("discovered", discovered::TESTS),
        ("ranges", ranges::TESTS),
        ("modes", modes::TESTS),
        ("ports", ports::TESTS),
        ("meanwhile", meanwhile::TESTS),
        ("harness", harness::TESTS),
        ("traffic", traffic::TESTS),
        ("sizes", sizes::TESTS),
        ("hostile", hostile::TESTS),
        ("off_path", off_path::TESTS),
        ("gateways", gateways::TESTS),
        ("errors", errors::TESTS),
        ("l2", l2::TESTS),
        #[cfg(feature = "import")]
        ("import", imported::TESTS),
        ("interfaces", interfaces::TESTS),
        ("faults", faults::TESTS),
        ("process", process::TESTS),
        ("holder", holder::TESTS),
        ("sources", sources::TESTS),
        ("explain", explain::TESTS),
        ("classic", classic::TESTS),
    ];
    let trials = areas
        .iter()
        .flat_map(|(area, tests)| tests.iter().map(move |test| (area, test)))
        .map(|(area, (name, who, test))| {
            let skip = skip.clone().or_else(|| {
                (site::kernel_in_place() && *who == For::Convey)
                    .then(|| "the kernel stands in for Convey".to_owned())
            });
            lab::suite::trial(area, name, *test, skip)
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
