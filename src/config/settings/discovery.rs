//! Settings of sources of servers.

use super::{Settings, set, some, text, time};
use crate::config::discovery::{Discovery, DiscoverySource, MaxRemoval};

/// `[backends.NAME.discovery]`.
pub fn discovery(discovery: &Discovery) -> Settings {
    let Discovery {
        source,
        interval,
        on_failure,
        max_servers,
        min_servers,
        max_removal,
        servers_within,
        max_answer_bytes,
    } = discovery;
    let mut settings = vec![("kind", text(discovery.kind().label()))];
    match source {
        DiscoverySource::File { path, format } => {
            settings.push(("path", super::path(path)));
            settings.push(("format", text(format.label())));
        }
        DiscoverySource::Exec { command, format } => {
            settings.push(("command", super::commands::words(&command.line)));
            settings.push(("timeout", time(command.timeout)));
            settings.push(("format", text(format.label())));
        }
    }
    let removal = match max_removal {
        MaxRemoval::Percent(_) => text(&max_removal.to_string()),
        MaxRemoval::Count(count) => set(*count),
    };
    settings.extend([
        ("interval", time(*interval)),
        ("on_failure", text(on_failure.label())),
        ("max_servers", set(*max_servers)),
        ("min_servers", set(*min_servers)),
        ("max_removal", removal),
        (
            "servers_within",
            some(servers_within, "every other host's addresses"),
        ),
        ("max_answer_bytes", set(*max_answer_bytes)),
    ]);
    settings
}
