//! The raw engine's sockets and threads on real interfaces of network namespaces. Needs root; without it every test
//! counts as ignored.

#[path = "../lab/mod.rs"]
mod lab;

mod bpf;
mod inherited;
mod keeper;
mod passthrough;
mod site;
mod sockets;
mod stage;
mod takeover;
mod threads;
mod torn;
mod verifier;
mod wire;

use std::process::ExitCode;

pub(crate) use lab::suite::{Test, tests};

fn main() -> ExitCode {
    let areas: &[(&str, &[Test])] = &[
        ("bpf", bpf::TESTS),
        ("inherited", inherited::TESTS),
        ("keeper", keeper::TESTS),
        ("passthrough", passthrough::TESTS),
        ("sockets", sockets::TESTS),
        ("takeover", takeover::TESTS),
        ("threads", threads::TESTS),
        ("torn", torn::TESTS),
        ("verifier", verifier::TESTS),
    ];
    lab::suite::run(lab::why_not_packets().as_deref(), areas)
}
