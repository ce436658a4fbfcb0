//! `[backends.NAME.discovery]`.

use std::{num::NonZeroU32, time::Duration};

use super::{int, limit, time, value};
use crate::config::{
    commands::Command,
    discovery::{AnswerFormat, Discovery, DiscoveryKind, DiscoverySource, MaxRemoval, OnFailure},
    findings::Findings,
    raw::{self, Located},
};

/// As gobetween and awe4lb have it in their examples.
const INTERVAL: Duration = Duration::from_secs(10);

/// As gobetween has it for commands, and two seconds for a shell to start.
const TIMEOUT: Duration = Duration::from_secs(5);

const MAX_SERVERS: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");

/// Room for 10,000 servers a line.
const MAX_ANSWER_BYTES: u32 = 1 << 20;

/// Where the servers of a backend come from besides the file.
pub fn discovery(at: Option<&Located<raw::Discovery>>, findings: &mut Findings) -> Option<Discovery> {
    let at = at?;
    findings.within("discovery", |findings| {
        let raw = &at.value;
        let max_servers = limit(raw.max_servers.as_ref()).unwrap_or(MAX_SERVERS);
        let min_servers = int(raw.min_servers.as_ref(), 1);
        if let Some(at) = raw
            .min_servers
            .as_ref()
            .filter(|_| min_servers > max_servers.get())
        {
            findings.within("min_servers", |findings| {
                findings.error(
                    at.span.clone(),
                    format!("`min_servers` is above `max_servers` ({max_servers}): no answer could be taken"),
                    "lower it, or raise `max_servers`".to_owned(),
                );
            });
        }
        Some(Discovery {
            source: source(at, findings)?,
            interval: time(raw.interval.as_ref(), INTERVAL),
            on_failure: value(raw.on_failure.as_ref(), OnFailure::Keep, |v| v),
            max_servers,
            min_servers,
            max_removal: value(raw.max_removal.as_ref(), MaxRemoval::Percent(50), |v| v),
            servers_within: value(raw.servers_within.as_ref(), Vec::new(), |v| v.0),
            max_answer_bytes: int(raw.max_answer_bytes.as_ref(), MAX_ANSWER_BYTES),
        })
    })
}

fn source(at: &Located<raw::Discovery>, findings: &mut Findings) -> Option<DiscoverySource> {
    let raw = &at.value;
    let kind = raw.kind.as_ref()?.value;
    let format = value(raw.format.as_ref(), AnswerFormat::Text, |v| v);
    useless(raw, kind, findings);
    let needs = |key: &str, example: &str, findings: &mut Findings| {
        if findings.absence_counts() {
            let help = format!("kind \"{}\" needs it: {key} = {example}", kind.label());
            findings.error(at.key.clone(), format!("missing key `{key}`"), help);
        }
    };
    match kind {
        DiscoveryKind::File => {
            let Some(path) = &raw.path else {
                needs("path", "\"/etc/convey/web.servers\"", findings);
                return None;
            };
            Some(DiscoverySource::File {
                path: path.value.0.clone()?,
                format,
            })
        }
        DiscoveryKind::Exec => {
            let Some(command) = &raw.command else {
                needs("command", "[\"/usr/local/bin/servers\", \"web\"]", findings);
                return None;
            };
            Some(DiscoverySource::Exec {
                command: Command {
                    line: command.value.0.clone()?,
                    timeout: time(raw.timeout.as_ref(), TIMEOUT),
                },
                format,
            })
        }
    }
}

/// Keys of other kinds.
fn useless(raw: &raw::Discovery, kind: DiscoveryKind, findings: &mut Findings) {
    let keys = [
        ("path", DiscoveryKind::File, raw.path.as_ref().map(|at| &at.key)),
        (
            "command",
            DiscoveryKind::Exec,
            raw.command.as_ref().map(|at| &at.key),
        ),
        (
            "timeout",
            DiscoveryKind::Exec,
            raw.timeout.as_ref().map(|at| &at.key),
        ),
    ];
    for (key, of, place) in keys {
        if let Some(place) = place.filter(|_| of != kind) {
            findings.within(key, |findings| {
                findings.error(
                    place.clone(),
                    format!("`{key}` belongs to kind \"{}\"", of.label()),
                    format!("leave it out, or write kind = \"{}\"", of.label()),
                );
            });
        }
    }
}
