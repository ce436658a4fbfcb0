//! `[servers.NAME]`: a frontend and a backend.

use std::{net::SocketAddr, time::Duration};

use super::{checks, discovery, go, model::Server, tls};
use crate::import::{
    At, DirectiveId, Draft, Value,
    fields::{Fields, Scalar},
    port_names,
};

/// What `[defaults]` and a server can say, without what says it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    max_connections: Option<u64>,
    client_idle: Option<Duration>,
    backend_idle: Option<Duration>,
    connect: Option<Duration>,
}

/// The directives of [`Options`].
#[derive(Debug, Default)]
struct Said {
    max_connections: Option<DirectiveId>,
    idle: Vec<DirectiveId>,
    connect: Option<DirectiveId>,
}

impl Options {
    /// Reads those of `[defaults]`.
    pub fn read(fields: &mut Fields<'_>, draft: &mut Draft) -> Self {
        let (options, said) = Self::both(fields, draft);
        let ids = said
            .max_connections
            .into_iter()
            .chain(said.idle)
            .chain(said.connect);
        ids.for_each(|id| draft.translated(id));
        options
    }

    /// Ends the table that they were read from.
    pub fn and_finish(self, fields: Fields<'_>, draft: &mut Draft) -> Self {
        fields.finish(draft);
        self
    }

    fn both(fields: &mut Fields<'_>, draft: &mut Draft) -> (Self, Said) {
        let mut said = Said::default();
        let max_connections = fields.number(draft, "max_connections");
        said.max_connections = max_connections.map(|(id, _)| id);
        let mut time = |key| fields.parsed(draft, key, "a time such as \"10m\" or \"0\"", go::duration);
        let (client, backend) = (time("client_idle_timeout"), time("backend_idle_timeout"));
        let connect = time("backend_connection_timeout");
        said.idle = client.iter().chain(&backend).map(|(id, _)| *id).collect();
        said.connect = connect.map(|(id, _)| id);
        let options = Self {
            max_connections: max_connections.map(|(_, number)| number),
            client_idle: client.map(|(_, time)| time),
            backend_idle: backend.map(|(_, time)| time),
            connect: connect.map(|(_, time)| time),
        };
        (options, said)
    }

    fn or(self, defaults: &Self) -> Self {
        Self {
            max_connections: self.max_connections.or(defaults.max_connections),
            client_idle: self.client_idle.or(defaults.client_idle),
            backend_idle: self.backend_idle.or(defaults.backend_idle),
            connect: self.connect.or(defaults.connect),
        }
    }
}

const LEFT_OUT: &str = "its server is left out";

/// Translates a server.
pub fn translate(name: &str, mut fields: Fields<'_>, defaults: &Options, has_acme: bool, draft: &mut Draft) {
    let Some(bind) = fields.text(draft, "bind") else {
        draft.comment(
            At::Top,
            &format!("Server {name} has no bind: gobetween does not start with it, and it is left out."),
        );
        fields.leave_out(draft, LEFT_OUT);
        return;
    };
    let listen = match listen(bind.text) {
        Ok(listen) => listen,
        Err(why) => {
            draft.no_equal(bind.id, At::Top, why);
            fields.leave_out(draft, LEFT_OUT);
            return;
        }
    };
    let frontend_name = draft.frontend_name(name);
    let backend_name = draft.backend_name(name);
    let frontend = draft.section(&["frontends", &frontend_name]);
    let backend = draft.section(&["backends", &backend_name]);
    fields.set_home(At::In(frontend));
    draft.set(frontend, &["listen_addr"], listen);
    draft.translated(bind.id);
    draft.set(frontend, &["backend"], backend_name.as_str());
    let protocol = fields.text(draft, "protocol");
    let is_udp = protocol.is_some_and(|protocol| protocol.text == "udp");
    if let Some(protocol) = protocol {
        match protocol.text {
            "tcp" | "tls" | "udp" => draft.translated(protocol.id),
            _ => draft.no_equal(
                protocol.id,
                At::In(frontend),
                "gobetween knows \"tcp\", \"tls\" and \"udp\"",
            ),
        }
    }
    if is_udp {
        draft.set(frontend, &["protocol"], "udp");
    }
    let (options, said) = Options::both(&mut fields, draft);
    let mut server = Server {
        backend_name,
        frontend,
        backend,
        is_udp,
        sni: None,
        is_weighted: true,
        has_backend_tls: fields.has("backends_tls"),
    };
    server.options(options.or(defaults), &said, draft);
    server.sni(&mut fields, draft);
    if let Some(table) = fields.table(draft, "tls", At::In(frontend)) {
        let is_used = protocol.is_some_and(|protocol| protocol.text == "tls");
        tls::frontend(&frontend_name, table, is_used, has_acme, draft);
    }
    if let Some(table) = fields.table(draft, "backends_tls", At::In(backend)) {
        tls::backend(&server.backend_name, table, draft);
    }
    server.balance(fields.text(draft, "balance"), draft);
    server.udp(&mut fields, draft);
    server.access(&mut fields, draft);
    if let Some(mut table) = fields.table(draft, "proxy_protocol", At::In(backend)) {
        if let Some(version) = table.text(draft, "version") {
            match version.text {
                "1" => {
                    draft.set(backend, &["send_proxy"], "v1");
                    draft.translated(version.id);
                }
                _ => draft.no_equal(
                    version.id,
                    At::In(backend),
                    "gobetween knows version \"1\"; send_proxy is \"v1\" or \"v2\"",
                ),
            }
        }
        table.finish(draft);
    }
    discovery::translate(fields.table(draft, "discovery", At::In(backend)), &server, draft);
    checks::translate(
        fields.table(draft, "healthcheck", At::In(backend)),
        &server,
        draft,
    );
    fields.finish(draft);
}

/// `listen_addr` for a `bind`.
fn listen(bind: &str) -> Result<String, &'static str> {
    const NAME: &str = "Convey listens on addresses, not on names: write the address that this host has under it as listen_addr. The server is \
                        left out";
    let (host, port) = bind
        .rsplit_once(':')
        .ok_or("it has no port, so that gobetween does not start with it: the server is left out")?;
    let port = port_names::port(port).filter(|port| *port > 0);
    let port = port.ok_or("it needs a port from 1 to 65535: the server is left out")?;
    match host.trim_start_matches('[').trim_end_matches(']') {
        // all addresses, of both families
        "" => Ok(format!("[::]:{port}")),
        "localhost" => Ok(format!("127.0.0.1:{port}")),
        host => {
            let ip: std::net::IpAddr = host.parse().map_err(|_| NAME)?;
            Ok(SocketAddr::new(ip, port).to_string())
        }
    }
}

impl Server {
    fn options(&self, options: Options, said: &Said, draft: &mut Draft) {
        let at = At::In(self.frontend);
        let usual = Options::default();
        if let Some(max) = options.max_connections.filter(|max| *max > 0) {
            draft.set(self.frontend, &["max_connections"], max.min(u32::MAX.into()));
            if let Some(id) = said.max_connections {
                draft.differs(
                    id,
                    at,
                    "more connections wait in the kernel's queue; gobetween closes them",
                );
            }
        } else {
            said.max_connections
                .into_iter()
                .for_each(|id| draft.translated(id));
        }
        let sides = [options.client_idle, options.backend_idle];
        let idle = sides.into_iter().flatten().filter(|time| !time.is_zero()).min();
        match idle {
            Some(time) => {
                draft.set(self.frontend, &["idle_timeout"], Value::duration(time));
                for id in &said.idle {
                    let text = "Convey counts both directions together: a connection is idle when neither side sends";
                    draft.differs(*id, at, text);
                }
            }
            None if self.is_udp => {
                for id in &said.idle {
                    draft.differs(
                        *id,
                        at,
                        "a session of UDP ends some time: without traffic after 60s",
                    );
                }
            }
            None => {
                draft.set(self.frontend, &["idle_timeout"], Value::Integer(0));
                said.idle.iter().for_each(|id| draft.translated(*id));
            }
        }
        match options.connect.filter(|time| !time.is_zero()) {
            Some(time) if !self.is_udp => {
                let time = time.min(Duration::from_secs(3_600));
                draft.set(self.backend, &["connect_timeout"], Value::duration(time));
                said.connect.into_iter().for_each(|id| draft.translated(id));
            }
            _ => said.connect.into_iter().for_each(|id| {
                match self.is_udp || usual.connect == options.connect {
                    true => draft.translated(id),
                    false => draft.differs(
                        id,
                        At::In(self.backend),
                        "a connect always has a limit: connect_timeout is \"5s\" by default",
                    ),
                }
            }),
        }
    }

    fn sni(&mut self, fields: &mut Fields<'_>, draft: &mut Draft) {
        let at = At::In(self.frontend);
        let Some(mut table) = fields.table(draft, "sni", at) else {
            return;
        };
        let matching = table.text(draft, "hostname_matching_strategy");
        self.sni = Some(matching.is_some_and(|matching| matching.text == "regexp"));
        if let Some(matching) = matching {
            match matching.text {
                "exact" | "regexp" => draft.translated(matching.id),
                _ => draft.no_equal(matching.id, at, "gobetween knows \"exact\" and \"regexp\""),
            }
        }
        if let Some(unexpected) = table.text(draft, "unexpected_hostname_strategy") {
            match unexpected.text {
                "default" | "reject" | "any" => {
                    draft.set(self.frontend, &["unexpected_sni"], unexpected.text);
                    draft.translated(unexpected.id);
                }
                _ => draft.no_equal(
                    unexpected.id,
                    at,
                    "unexpected_sni is \"default\", \"reject\" or \"any\"",
                ),
            }
        }
        let read = table.parsed(draft, "read_timeout", "a time such as \"2s\"", go::duration);
        let time = read.map_or(Duration::from_secs(2), |(_, time)| time);
        if !time.is_zero() {
            let time = time.min(Duration::from_secs(3_600));
            draft.set(self.frontend, &["client_hello_timeout"], Value::duration(time));
        }
        read.into_iter().for_each(|(id, _)| draft.translated(id));
        table.finish(draft);
    }

    fn balance(&mut self, balance: Option<Scalar<'_>>, draft: &mut Draft) {
        let at = At::In(self.backend);
        let hash = "a client's address keeps its server, but it may be another one than gobetween's";
        let (value, difference) = match balance.map(|balance| balance.text) {
            None | Some("weight") => ("random", None),
            Some("roundrobin") => ("round_robin", None),
            Some("leastconn") => ("least_connections", None),
            Some("leastbandwidth") => ("least_bandwidth", None),
            Some("iphash" | "iphash1") => ("source_hash", Some(hash)),
            Some(_) => (
                "random",
                Some("gobetween 0.8 does not know it; its default took its place"),
            ),
        };
        self.is_weighted = value == "random";
        draft.set(self.backend, &["balance"], value);
        if let Some(balance) = balance {
            match difference {
                Some(text) => draft.differs(balance.id, at, text),
                None => draft.translated(balance.id),
            }
        }
    }

    fn udp(&self, fields: &mut Fields<'_>, draft: &mut Draft) {
        let at = At::In(self.frontend);
        let Some(mut table) = fields.table(draft, "udp", at) else {
            return;
        };
        for (key, name) in [
            ("max_requests", "max_requests"),
            ("max_responses", "max_responses"),
        ] {
            let Some((id, number)) = table.number(draft, key) else {
                continue;
            };
            if number > 0 && self.is_udp {
                draft.set(self.frontend, &["udp", name], number.min(u32::MAX.into()));
            }
            draft.translated(id);
        }
        match table.flag(draft, "transparent") {
            Some((id, true)) => {
                draft.set(self.frontend, &["source"], "client");
                draft.differs(id, at, "it needs routes on this host, which `convey check` prints, and answers that come back through it");
            }
            Some((id, false)) => draft.translated(id),
            None => {}
        }
        table.finish(draft);
    }

    fn access(&self, fields: &mut Fields<'_>, draft: &mut Draft) {
        let at = At::In(self.frontend);
        let Some(mut table) = fields.table(draft, "access", at) else {
            return;
        };
        if let Some(default) = table.text(draft, "default") {
            match default.text {
                "allow" | "deny" => {
                    draft.set(self.frontend, &["access", "default"], default.text);
                    draft.translated(default.id);
                }
                _ => draft.no_equal(default.id, at, "access.default is \"allow\" or \"deny\""),
            }
        }
        let mut rules = Vec::new();
        for rule in table.items(draft, "rules") {
            match access_rule(rule.text) {
                Some(text) => {
                    rules.push(text);
                    draft.translated(rule.id);
                }
                None => draft.no_equal(
                    rule.id,
                    at,
                    "a rule is \"allow\" or \"deny\", a blank, and an address or a network",
                ),
            }
        }
        if !rules.is_empty() {
            draft.set(self.frontend, &["access", "rules"], rules);
        }
        table.finish(draft);
    }
}

/// A rule with the address of its network where it names one within.
fn access_rule(text: &str) -> Option<String> {
    let (action, subject) = text
        .split_once(' ')
        .filter(|(action, _)| matches!(*action, "allow" | "deny"))?;
    if subject.parse::<std::net::IpAddr>().is_ok() {
        return Some(text.to_owned());
    }
    let (ip, bits) = subject.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let ip = match ip.parse().ok()? {
        std::net::IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(ip.to_bits() & mask).to_string()
        }
        std::net::IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(ip.to_bits() & mask).to_string()
        }
    };
    Some(format!("{action} {ip}/{bits}"))
}
