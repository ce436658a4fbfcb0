//! What the running convey says of itself.

use std::collections::BTreeMap;

use super::finding::{Area, Diagnosis, Level};
use crate::{
    admin::views::{
        Acme, Backend, CertificateState, Certificates, Discovery, Frontend, HopState, Packet, Phase, Server,
        Status,
    },
    base::{Alert, BackendName, ServerState},
    cli::text::time,
};

/// Days before its end from which on a certificate is worth a word that nobody orders by itself.
const SOON: f64 = 14.0 * 86_400.0;

/// The same of one that is ordered: it should have been long ago.
const LATE: f64 = 86_400.0;

/// Percent of something that fills.
const FILLING: u64 = 80;

/// Judges what it is doing.
pub fn judge(status: &Status, found: &mut Diagnosis) {
    process(status, found);
    for (name, frontend) in &status.frontends {
        self::frontend(name.as_str(), frontend, &status.backends, found);
    }
    for (name, backend) in &status.backends {
        for (server, view) in &backend.servers {
            self::server(&format!("{name}/{server}"), view, found);
        }
        if let Some(source) = &backend.discovery {
            discovery(name.as_str(), source, found);
        }
    }
    if let Some(packet) = &status.packet {
        self::packet(packet, found);
    }
    if let Some(acme) = &status.acme {
        self::acme(acme, found);
    }
}

fn process(status: &Status, found: &mut Diagnosis) {
    if status.version != env!("CARGO_PKG_VERSION") {
        found.note(
            Area::Daemon,
            format!(
                "version {} runs, and this command is of version {}",
                status.version,
                env!("CARGO_PKG_VERSION")
            ),
            "systemctl restart convey",
        );
    }
    if status.phase != Phase::Running {
        found.warning(
            Area::Daemon,
            format!("it is {}", status.phase),
            "see `systemctl status convey` and `journalctl -u convey`",
        );
    }
    if let Some(error) = &status.last_reload_error {
        let first = error.lines().next().unwrap_or_default();
        found.error(
            Area::Configuration,
            format!("the last reload failed, and the configuration before is still in effect: {first}"),
            format!(
                "convey check -c {0}, mend it, then convey reload",
                status.config_file
            ),
        );
    }
    if !status.needs_restart.is_empty() {
        found.warning(
            Area::Configuration,
            format!(
                "waits for a restart to take effect: {}",
                status.needs_restart.join(", ")
            ),
            "systemctl restart convey (new connections wait meanwhile)",
        );
    }
    let connections = &status.proxied_connections;
    let (open, most) = (u64::from(connections.open), u64::from(connections.most));
    let remedy =
        "systemctl edit convey: [Service] LimitNOFILE= with more than twice the connections, then a restart";
    if connections.accept_pauses > 0 {
        found.warning(
            Area::Descriptors,
            format!(
                "listeners have paused {} time(s) because {most} connections were open, as many as the limit of open files allows",
                connections.accept_pauses
            ),
            remedy,
        );
    } else if open * 100 >= most * FILLING && most > 0 {
        found.warning(
            Area::Descriptors,
            format!("{open} of {most} connections are open that the limit of open files allows"),
            remedy,
        );
    }
    if status.log_events_dropped > 0 {
        found.note(
            Area::Daemon,
            format!("{} log events were dropped", status.log_events_dropped),
            "set access_log = \"errors\" or lower access_log_per_second in [global]",
        );
    }
    if status.admin_connections_refused > 0 {
        found.note(
            Area::Daemon,
            format!(
                "{} connections to the admin endpoints were refused",
                status.admin_connections_refused
            ),
            "look for programs that ask too often or leave connections open",
        );
    }
}

fn frontend(name: &str, view: &Frontend, backends: &BTreeMap<BackendName, Backend>, found: &mut Diagnosis) {
    if !view.serves {
        let servers = backends
            .get(&view.backend)
            .map_or(0, |backend| backend.servers.len());
        let why = match backends.get(&view.backend).map_or(0, |backend| backend.eligible) {
            0 if servers == 0 => format!("backend {} has no servers", view.backend),
            0 => format!(
                "none of the {servers} server(s) of backend {} is eligible",
                view.backend
            ),
            _ => "its address is not live".to_owned(),
        };
        found.error(
            Area::Traffic,
            format!("frontend {name} serves nobody: {why}"),
            format!("convey status {name}"),
        );
    }
    for (range, why) in &view.waiting {
        // a standby is meant to wait
        let level = if view.serves { Level::Note } else { Level::Error };
        found.add(
            level,
            Area::Traffic,
            format!("frontend {name}: {range} is waiting: {why}"),
            "add the address to an interface; on a standby, which has no VIP, that is as it should be"
                .to_owned(),
        );
    }
    if view.logs_tls_keys {
        found.warning(
            Area::Traffic,
            format!("frontend {name} writes the secrets of its TLS connections to a file (key_log)"),
            "remove key_log once the capture is made, and delete the file",
        );
    }
}

fn server(name: &str, view: &Server, found: &mut Diagnosis) {
    if let Some(overridden) = &view.overridden {
        found.note(
            Area::Traffic,
            format!("server {name} has an override: {overridden}"),
            format!("convey server ready {name}, once it is no longer wanted"),
        );
    } else if view.state == ServerState::Down {
        let why = view
            .state_reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let since = view
            .state_seconds
            .map_or_else(String::new, |seconds| format!(" for {}", time(seconds)));
        found.warning(
            Area::Traffic,
            format!("server {name} is down{since}{why}"),
            format!("convey status {name} shows its last checks"),
        );
    }
    if let Some(problem) = view.agent.as_ref().and_then(|agent| agent.problem.as_ref()) {
        found.warning(
            Area::Traffic,
            format!("the agent of server {name} is not understood: {problem}"),
            "see agent_check of its backend, and the program that answers there",
        );
    }
    let Some(packets) = &view.packet else { return };
    for alert in &packets.alerts {
        self::alert(Some(name), alert.known(), &alert.to_string(), found);
    }
    if let Some(ports) = packets
        .nat_ports
        .filter(|ports| u64::from(ports.percent()) >= FILLING)
    {
        found.warning(
            Area::PacketModes,
            format!(
                "{} of {} NAT ports towards server {name} are taken",
                ports.claimed, ports.available
            ),
            "widen [packet] nat_ports, or name several nat_address",
        );
    }
}

fn discovery(backend: &str, source: &Discovery, found: &mut Diagnosis) {
    if let Some(problem) = &source.problem {
        found.warning(
            Area::Discovery,
            format!(
                "{} ({}), which names servers of backend {backend}: {} (for {})",
                source.source,
                source.kind,
                problem.text,
                time(problem.seconds)
            ),
            match problem.held {
                true => {
                    "if that many servers are meant to go, raise max_removal of its discovery for a moment"
                }
                false => "the servers before stay in use; see whether the source can be reached from here",
            },
        );
    }
    if source.left_out > 0 {
        found.warning(
            Area::Discovery,
            format!(
                "{} server(s) that {} names may not be used for backend {backend}",
                source.left_out, source.source
            ),
            "see servers_within and max_servers of its discovery, and the log",
        );
    }
}

fn packet(packet: &Packet, found: &mut Diagnosis) {
    for alert in &packet.alerts {
        self::alert(None, alert.known(), &alert.to_string(), found);
    }
    if let Some(error) = &packet.rules.error {
        found.error(
            Area::Firewall,
            format!("the firewall rules are not known to be right: {error}"),
            "sudo convey firewall show; without them the kernel resets connections of the packet modes",
        );
    }
    if packet.rules.restored > 0 {
        found.warning(
            Area::Firewall,
            format!(
                "another program has changed the firewall rules {} time(s); they were restored",
                packet.rules.restored
            ),
            "find it (`sudo nft monitor`): meanwhile connections may have been reset",
        );
    }
    for (server, hop) in &packet.next_hops {
        if hop.state != HopState::Resolved {
            let why = hop
                .reason
                .as_ref()
                .map_or_else(String::new, |why| format!(": {why}"));
            found.error(
                Area::PacketModes,
                format!("the next hop to server {server} is {}{why}", hop.state),
                format!("ip route get {server}; ping -c1 {server}"),
            );
        }
    }
    if packet.flows.max > 0 && (packet.flows.nat + packet.flows.dsr) * 100 >= packet.flows.max * FILLING {
        found.warning(
            Area::PacketModes,
            format!(
                "{} of {} flows are taken",
                packet.flows.nat + packet.flows.dsr,
                packet.flows.max
            ),
            "raise [packet] max_flows, then restart",
        );
    }
}

/// Servers that do not answer, and whatever else the packet modes warn of.
fn alert(server: Option<&str>, known: Option<Alert>, label: &str, found: &mut Diagnosis) {
    let of = server.map_or_else(String::new, |server| format!("server {server}: "));
    let Some(alert) = known else {
        return found.warning(
            Area::PacketModes,
            format!("{of}{label}"),
            "convey status; journalctl -u convey",
        );
    };
    // what happens, and what to do about it
    let sentence = alert.sentence();
    let parts = sentence.split_once("; ").or_else(|| sentence.split_once(": "));
    let (what, remedy) = parts.unwrap_or((sentence, "convey status; journalctl -u convey"));
    found.error(Area::PacketModes, format!("{of}{what}"), remedy);
}

fn acme(acme: &Acme, found: &mut Diagnosis) {
    for certificate in &acme.certificates {
        let name = &certificate.name;
        let why = certificate.problem.as_ref().map(|problem| {
            format!(
                "the order for {name} fails for {}: {}",
                time(problem.seconds),
                problem.text
            )
        });
        let is_there = certificate.state == CertificateState::Valid;
        let remedy = "convey acme status; convey acme renew";
        match (why, is_there) {
            (Some(why), true) => found.warning(Area::Certificates, why, remedy),
            (Some(why), false) => found.error(Area::Certificates, why, remedy),
            (None, true) => {}
            (None, false) => found.warning(
                Area::Certificates,
                format!("the certificate for {name} is {}", certificate.state),
                "convey acme status",
            ),
        }
    }
}

/// Judges the certificates that clients get. Of those in `said` something was said already.
pub fn certificates(served: &Certificates, said: &dyn Fn(&str) -> bool, found: &mut Diagnosis) {
    for certificate in served
        .certificates
        .iter()
        .filter(|certificate| !said(&certificate.name))
    {
        let (name, frontend) = (&certificate.name, &certificate.frontend);
        let seconds = certificate.expires_seconds;
        let soon = if certificate.ordered { LATE } else { SOON };
        let remedy = match certificate.ordered {
            true => "convey acme status; convey acme renew",
            false => "renew it, and put it in the same place: it is in use within seconds",
        };
        if seconds < 0.0 {
            let message = format!(
                "the certificate {name} of frontend {frontend} has expired {} ago",
                time(-seconds)
            );
            found.error(Area::Certificates, message, remedy);
        } else if seconds < soon {
            let message = format!(
                "the certificate {name} of frontend {frontend} expires in {}",
                time(seconds)
            );
            found.warning(Area::Certificates, message, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::views::ServedCertificate,
        base::FrontendName,
        cli::picture::tests::{a_server, example},
    };

    fn said(judge: impl FnOnce(&mut Diagnosis)) -> Vec<(Level, String)> {
        let mut found = Diagnosis::default();
        judge(&mut found);
        let findings = found.findings.into_iter();
        findings.map(|finding| (finding.level, finding.message)).collect()
    }

    #[test]
    fn a_frontend_that_serves_nobody_is_an_error_with_the_reason() {
        let said = said(|found| judge(&example(), found));
        assert!(
            said.iter().any(|(level, message)| {
                *level == Level::Error && message.starts_with("frontend mail serves nobody: ")
            }),
            "{said:?}"
        );
        assert!(
            !said
                .iter()
                .any(|(_, message)| message.contains("frontend web serves")),
            "{said:?}"
        );
    }

    #[test]
    fn a_server_that_is_down_is_told_and_one_that_an_operator_took_out_is_a_note() {
        let mut down = a_server(ServerState::Down);
        down.state_reason = Some("refused".into());
        down.state_seconds = Some(61.0);
        assert_eq!(
            said(|found| server("web/a", &down, found)),
            [(
                Level::Warning,
                "server web/a is down for 1m 1s: refused".to_owned()
            )]
        );
        down.overridden = "maintenance".parse().ok();
        assert_eq!(
            said(|found| server("web/a", &down, found)),
            [(
                Level::Note,
                "server web/a has an override: maintenance".to_owned()
            )]
        );
        assert_eq!(
            said(|found| server("web/a", &a_server(ServerState::Up), found)),
            []
        );
    }

    #[test]
    fn every_alert_is_an_error_with_something_to_do() {
        for known in Alert::ALL {
            let mut found = Diagnosis::default();
            alert(Some("web/a"), Some(known), known.label(), &mut found);
            let finding = &found.findings[0];
            assert!(finding.message.starts_with("server web/a: ") && !finding.remedy.is_empty());
        }
    }

    #[test]
    fn a_certificate_is_told_in_time_and_one_that_is_ordered_when_that_should_have_happened() {
        let certificate = |ordered, days: f64| Certificates {
            certificates: vec![ServedCertificate {
                frontend: FrontendName::new("web").expect("a name"),
                name: "/etc/convey/web.pem".into(),
                ordered,
                subject: String::new(),
                issuer: String::new(),
                names: vec![],
                key: String::new(),
                not_before: String::new(),
                not_after: String::new(),
                expires_seconds: days * 86_400.0,
                serial: String::new(),
            }],
        };
        let level = |ordered, days| {
            let said = said(|found| certificates(&certificate(ordered, days), &|_| false, found));
            said.first().map(|(level, _)| *level)
        };
        assert_eq!(level(false, 15.0), None);
        assert_eq!(level(false, 13.0), Some(Level::Warning));
        assert_eq!(level(true, 13.0), None);
        assert_eq!(level(true, 0.5), Some(Level::Warning));
        assert_eq!(level(true, -1.0), Some(Level::Error));
        assert_eq!(
            said(|found| certificates(&certificate(false, -1.0), &|_| true, found)),
            []
        );
    }
}
