//! What got lost or was refused, of the process as a whole.

use std::fmt::Write;

use super::{Status, Style, counted, harmless};
use crate::base::OtlpSignal;

/// Says it, each in a line; nothing if there is nothing.
pub fn draw(out: &mut String, status: &Status, colour: bool) {
    let dropped = [
        (status.log_events_dropped, "log event", "dropped"),
        (
            status.admin_connections_refused,
            "connection",
            "to the control socket or /stats refused",
        ),
        (status.admin_logins_failed, "login", "to the admin API failed"),
    ];
    for (count, what, fate) in dropped {
        if count > 0 {
            let _ = writeln!(out, "{} {fate}", counted(count, what));
        }
    }
    // that of logs is a place of the connection log, too
    for export in (status.otlp.iter()).filter(|export| export.signal == OtlpSignal::Metrics) {
        let dropped = export.dropped.values().sum();
        let (url, lost) = (harmless(&export.url), counted(dropped, "data point"));
        let _ = match &export.error {
            Some(error) => writeln!(
                out,
                "{} {}; {lost} dropped",
                Style::Bad.paint(&format!("Export of metrics to {url} fails:"), colour),
                harmless(error)
            ),
            None if dropped > 0 => writeln!(out, "export of metrics to {url}: {lost} dropped"),
            None => Ok(()),
        };
    }
    for output in &status.log_outputs {
        let (name, lost) = (harmless(&output.output), counted(output.dropped, "line"));
        let _ = match &output.error {
            Some(error) => writeln!(
                out,
                "{} {}; {lost} dropped",
                Style::Bad.paint(&format!("Connection log to {name} fails:"), colour),
                harmless(error)
            ),
            None if output.dropped > 0 => writeln!(out, "connection log to {name}: {lost} dropped"),
            None => Ok(()),
        };
    }
}
