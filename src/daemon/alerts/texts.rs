//! What the log says of alerts.

use super::{
    handshakes::HandshakeNews,
    shortages::{Shortage, Subject},
};
use crate::{
    backend_setup,
    base::{Alert, ServerKey},
    config::Mode,
    snapshot::Snapshot,
};

/// Warns of something that runs out.
pub fn log_shortage(shortage: &Shortage) {
    let (alert, packets) = (shortage.case.alert, shortage.packets);
    let sentence = alert.sentence();
    match &shortage.case.subject {
        Subject::All => tracing::warn!(
            event = alert.label(),
            packets,
            "{sentence} ({packets} packet(s) dropped since the last warning)"
        ),
        Subject::Server(key) => tracing::warn!(
            event = alert.label(),
            backend = %key.backend,
            server = %key.server,
            packets,
            "server {key}: {sentence} ({packets} packet(s) dropped since the last warning)"
        ),
        Subject::Frontend(name) => tracing::warn!(
            event = alert.label(),
            frontend = %name,
            refused = packets,
            "frontend {name}: {sentence} ({packets} refused since the last warning)"
        ),
    }
}

/// Warns that no handshake completes, or says that they do again.
pub fn log_handshakes(news: &HandshakeNews, snapshot: &Snapshot) {
    match news {
        HandshakeNews::Failing {
            server,
            alert,
            handshakes,
        } => tracing::warn!(
            event = alert.label(),
            backend = %server.backend,
            server = %server.server,
            handshakes,
            "server {server}: none of the last {handshakes} TCP handshakes completed: {}",
            advice(*alert, server, snapshot)
        ),
        HandshakeNews::Completing { server } => tracing::info!(
            event = "handshakes_complete",
            backend = %server.backend,
            server = %server.server,
            "server {server}: TCP handshakes complete again"
        ),
    }
}

/// What to look at.
fn advice(alert: Alert, server: &ServerKey, snapshot: &Snapshot) -> String {
    let frontends = snapshot.frontends.values();
    let dsr = frontends
        .filter(|view| view.config.mode == Mode::Dsr && view.config.backend == server.backend)
        .map(|view| &view.config.name)
        .min();
    match (alert, dsr) {
        (Alert::DsrIncomplete, Some(frontend)) => format!(
            "its answers do not reach the clients as the VIP's. Run the output of `convey backend-script {frontend} {}` \
             on the server, then `convey-backend-setup check {}` there",
            server.server,
            backend_setup::unit_name(frontend.as_str(), server.server.as_str())
        ),
        (Alert::Unanswered, _) => "the server answers no SYN. Check that its firewall and its address filter let in the \
             source address that `convey status` shows, and that its route back to this address leads to this host"
            .to_owned(),
        (Alert::Unacknowledged, _) => "the server answers, and no client acknowledges that. Check the routes of this host \
             to the clients, and the firewalls between them"
            .to_owned(),
        _ => alert.sentence().to_owned(),
    }
}
