//! Any bytes as a configuration file.
//!
//! A file that is refused says why, in places that exist and in text that is safe on a terminal. One that loads is
//! printed as a text that loads as the same configuration, which differs from itself in nothing.

#![no_main]

use std::sync::LazyLock;

use convey::config::{self, Config, Diagnostic, Diff, Mode, Options, Severity, Source};
use libfuzzer_sys::fuzz_target;

/// Something to compare with.
static SHIPPED: LazyLock<Config> = LazyLock::new(|| {
    let shipped = source(include_bytes!("../../configs/full.toml"));
    let loaded = config::load(&shipped, Options::default()).expect("the shipped file loads");
    loaded.config
});

fuzz_target!(init: LazyLock::force(&SHIPPED), |bytes: &[u8]| {
    let source = source(bytes);
    let options = Options {
        default_mode: [None, Some(Mode::Passthrough), Some(Mode::Dsr)][bytes.len() % 3],
        ..Options::default()
    };
    match config::load(&source, options) {
        Ok(loaded) => {
            check_findings(&loaded.warnings, &source);
            assert!(loaded.warnings.iter().all(|found| found.severity == Severity::Warning));
            check_config(&loaded.config);
        }
        Err(found) => {
            check_findings(&found, &source);
            assert!(found.iter().any(|found| found.severity == Severity::Error));
        }
    }
});

fn source(bytes: &[u8]) -> Source {
    Source {
        name: "convey.toml".to_owned(),
        bytes: bytes.to_vec(),
    }
}

fn check_findings(found: &[Diagnostic], source: &Source) {
    // a hundred, and how many more
    assert!(found.len() <= 101, "{} findings", found.len());
    let lines = source.bytes.split(|byte| *byte == b'\n').count();
    for finding in found {
        assert!(
            finding.span.start <= finding.span.end && finding.span.end <= source.bytes.len(),
            "{finding:?}"
        );
        assert!(finding.line <= lines, "line {} of {lines}", finding.line);
        assert_eq!(finding.line == 0, finding.column == 0, "{finding:?}");
        serde_json::to_string(finding).expect("a finding as JSON");
    }
    let plain = config::render(found, source, false);
    assert_eq!(plain.is_empty(), found.is_empty());
    let strange = plain.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(strange, None, "sent to a terminal: {plain:?}");
    let coloured = config::render(found, source, true);
    assert_eq!(without_colour(&coloured), plain);
}

/// The text without the escape sequences that set colours.
fn without_colour(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        let (_, rest) = part.split_once('m').expect("an escape sequence for a colour");
        plain + rest
    })
}

fn check_config(config: &Config) {
    let printed = config::print(config);
    let again = match config::load(&source(printed.as_bytes()), Options::default()) {
        Ok(loaded) => loaded.config,
        Err(found) => panic!(
            "what is printed does not load: {}\n{printed}",
            config::render(&found, &source(printed.as_bytes()), false)
        ),
    };
    assert_eq!(again, *config, "what is printed means something else:\n{printed}");
    assert_eq!(config::print(&again), printed);
    assert_eq!(config::diff(config, &again), Diff::default());
    let diff = config::diff(&SHIPPED, config);
    assert_eq!(diff.changes.is_empty(), *SHIPPED == *config, "{diff:?}");
    for service in config.packet_services() {
        let same_family = |server: &convey::base::IpServerAddr| server.0.is_ipv4() == service.vip.is_ipv4();
        assert!(service.servers.iter().all(same_family), "{service:?}");
    }
}
