//! The last checks of servers that were asked for.

use std::fmt::Write as _;

use super::super::text::{Style, harmless, natural_order};
use crate::{
    admin::views::{CheckResult, Status},
    base::CheckOutcome,
};

/// Servers up to which they are shown: more would hide the rest.
const MAX_SHOWN: usize = 8;

/// A paragraph, empty if there is nothing to be shown.
pub fn draw(status: &Status, colour: bool) -> String {
    let mut servers: Vec<_> = (status.backends.iter())
        .flat_map(|(backend, view)| {
            view.servers
                .iter()
                .map(move |(name, server)| (backend, name, server))
        })
        .filter(|(_, _, server)| !server.last_checks.is_empty())
        .collect();
    if servers.is_empty() || servers.len() > MAX_SHOWN {
        return String::new();
    }
    servers.sort_by(|a, b| {
        natural_order(a.0.as_str(), b.0.as_str()).then(natural_order(a.1.as_str(), b.1.as_str()))
    });
    let mut out = format!("\n{}\n", Style::Bold.paint("LAST CHECKS", colour));
    for (backend, name, server) in servers {
        for (index, check) in server.last_checks.iter().enumerate() {
            let whose = match index {
                0 => format!("{backend}/{name}"),
                _ => String::new(),
            };
            let _ = writeln!(out, "  {whose:<24} {}", line(check, colour));
        }
    }
    out
}

fn line(check: &CheckResult, colour: bool) -> String {
    let style = match check.outcome.known() {
        Some(CheckOutcome::Passed) => Style::Good,
        Some(CheckOutcome::Failed) => Style::Bad,
        Some(CheckOutcome::NotMade) | None => Style::Notice,
    };
    let word = check.outcome.to_string().replace('_', " ");
    let reason = check.reason.as_deref().map(|why| format!(": {}", harmless(why)));
    format!(
        "{} after {:.1} ms, {:.1} s ago{}",
        style.paint(&harmless(&word), colour),
        check.milliseconds,
        check.seconds_ago,
        reason.unwrap_or_default()
    )
}
