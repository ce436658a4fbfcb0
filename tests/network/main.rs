//! The follower of the network, shown with real routes and neighbours in network namespaces. Needs root; without it
//! every test counts as ignored.

#[path = "../lab/mod.rs"]
mod lab;

mod eye;
mod links;
mod neighbours;
mod news;
mod routes;
mod vips;

use std::process::ExitCode;

pub(crate) use lab::suite::{Test, tests};

fn main() -> ExitCode {
    let areas: &[(&str, &[Test])] = &[
        ("neighbours", neighbours::TESTS),
        ("routes", routes::TESTS),
        ("vips", vips::TESTS),
        ("links", links::TESTS),
        ("news", news::TESTS),
    ];
    lab::suite::run(lab::why_not().as_deref(), areas)
}
