//! Properties over generated configurations and over any bytes.

mod acme;
mod checks;
mod configs;
mod discovery;
mod otlp;
mod peers;
mod process;
mod routing;
mod sockets;
mod tls;

use std::{panic::resume_unwind, thread};

use convey::config::{self, Config, Options, Source};
use libtest_mimic::{Failed, Trial};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config as RunnerConfig, TestRunner},
};

use configs::configs;

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a_printed_configuration_reads_back_as_itself", || {
            with_room(|| {
                run(512, configs(), |config| {
                    let printed = config::print(&config);
                    let again = read(printed.as_bytes())
                        .map_err(|found| TestCaseError::fail(format!("{found}\n{printed}")))?;
                    prop_assert_eq!(&again, &config);
                    prop_assert_eq!(config::print(&again), printed);
                    prop_assert_eq!(config::diff(&config, &again), config::Diff::default());
                    Ok(())
                })
            })
        }),
        Trial::test(
            "two_configurations_that_differ_have_a_diff_and_equal_ones_none",
            || {
                with_room(|| {
                    run(256, (configs(), configs()), |(old, new)| {
                        let diff = config::diff(&old, &new);
                        prop_assert_eq!(diff.changes.is_empty(), old == new);
                        Ok(())
                    })
                })
            },
        ),
        Trial::test("no_bytes_make_it_panic", || {
            run(2_000, vec(any::<u8>(), 0..400), |bytes| survive(&bytes))
        }),
        Trial::test("no_text_makes_it_panic", || {
            run(2_000, ".{0,200}", |text| survive(text.as_bytes()))
        }),
        Trial::test("no_toml_like_text_makes_it_panic", || {
            let piece = prop::sample::select(PIECES);
            run(3_000, vec(piece, 0..60), |pieces| {
                survive(pieces.concat().as_bytes())
            })
        }),
        Trial::test("no_mutation_of_a_valid_file_makes_it_panic", || {
            let seeds: Vec<Vec<u8>> = super::files("configs")?
                .iter()
                .chain(&super::files("tests/config/good")?)
                .map(std::fs::read)
                .collect::<Result<_, _>>()?;
            let edit = (
                any::<prop::sample::Index>(),
                0..20_usize,
                prop::sample::select(PIECES),
            );
            run(
                1_000,
                (prop::sample::select(seeds), vec(edit, 1..6)),
                |(mut bytes, edits)| {
                    for (place, cut, piece) in edits {
                        let start = place.index(bytes.len() + 1);
                        let end = (start + cut).min(bytes.len());
                        bytes.splice(start..end, piece.bytes());
                    }
                    survive(&bytes)
                },
            )
        }),
    ]
    .into_iter()
    .map(|trial| trial.with_kind("generated"))
    .collect()
}

/// What TOML and configurations are made of.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    " = ",
    ",",
    ".",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "#",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "\\u",
    "\0",
    "é",
    "日本",
    "\u{feff}",
    "0",
    "-1",
    "1.5",
    "0x",
    "1e9",
    "true",
    "nan",
    "2024-01-01",
    "global",
    "frontends",
    "backends",
    "servers",
    "defaults",
    "stats",
    "a",
    "listen_addr",
    "backend",
    "addr",
    "weight",
    "mode = \"passthrough\"\n",
    "mode = \"dsr\"\n",
    "protocol = \"udp\"\n",
    "[packet]\n",
    "[passthrough]\n",
    "nat_ports",
    "nat_address",
    "\"40000-50000\"",
    "interface",
    "health_check",
    "health_check_interval",
    "interval",
    "\"3s\"",
    "\"0.0.0.0:80\"",
    "\"10.0.0.1:80\"",
    "[frontends.a]\n",
    "[backends.b]\n",
    "[backends.b.servers.c]\n",
    "addr = \"10.0.0.1:80\"\n",
    "listen_addr = \"0.0.0.0:80\"\n",
    "backend = \"b\"\n",
    "[global]\n",
    "[[frontends.a.routes]]\n",
    "sni = \"*.example.com\"\n",
    "reject = true\n",
    "destination = \":80\"\n",
    "[frontends.a.proxy_protocol]\n",
    "from = [\"10.0.0.0/8\"]\n",
    "fallback = \"b\"\n",
    "send_proxy = \"v2\"\n",
    "9999999999999999999999",
];

/// Runs a property with a fixed seed, so that a failure can be had again.
/// Runs a test on a stack that takes a whole configuration being made: tests are not optimized.
fn with_room(test: fn() -> Result<(), Failed>) -> Result<(), Failed> {
    let thread = thread::Builder::new().stack_size(32 << 20).spawn(test)?;
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn run<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> Result<(), Failed> {
    let config = RunnerConfig {
        cases,
        failure_persistence: None,
        ..RunnerConfig::default()
    };
    let seed = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, seed)
        .run(&strategy, test)
        .map_err(|error| error.to_string().into())
}

fn source(bytes: &[u8]) -> Source {
    Source {
        name: "convey.toml".into(),
        bytes: bytes.to_vec(),
    }
}

fn read(bytes: &[u8]) -> Result<Config, String> {
    let source = source(bytes);
    config::load(&source, Options::default())
        .map(|loaded| loaded.config)
        .map_err(|found| config::render(&found, &source, false))
}

/// Reading and reporting end without a panic, with an answer that makes sense.
fn survive(bytes: &[u8]) -> Result<(), TestCaseError> {
    let source = source(bytes);
    match config::load(&source, Options::default()) {
        Ok(loaded) => {
            prop_assert_eq!(
                config::render(&loaded.warnings, &source, true).is_empty(),
                loaded.warnings.is_empty()
            );
            prop_assert_eq!(read(config::print(&loaded.config).as_bytes()), Ok(loaded.config));
        }
        Err(found) => {
            prop_assert!(found.iter().any(|d| d.severity == config::Severity::Error));
            prop_assert!(
                found
                    .iter()
                    .all(|d| d.span.start <= d.span.end && d.span.end <= bytes.len())
            );
            prop_assert!(!config::render(&found, &source, true).is_empty());
        }
    }
    Ok(())
}
