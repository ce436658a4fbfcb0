//! `[servers.NAME.discovery]`: the servers of a backend, or where they come from.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{go, model::Server, platforms, source::Source, static_list};
use crate::import::{
    At, Draft, Value,
    address::joined,
    fields::{Fields, Scalar},
    paths,
};

/// Translates the discovery of a server.
pub fn translate(fields: Option<Fields<'_>>, server: &Server, draft: &mut Draft) {
    let Some(mut fields) = fields else {
        draft.comment(
            At::In(server.backend),
            "There is no discovery: gobetween does not start without one.",
        );
        return;
    };
    let Some(kind) = fields.text(draft, "kind") else {
        draft.comment(
            At::In(server.backend),
            "The discovery has no kind: gobetween does not start without one.",
        );
        fields.finish(draft);
        return;
    };
    if kind.text == "static" {
        draft.translated(kind.id);
        for key in ["interval", "timeout", "failpolicy"] {
            fields
                .scalar(draft, key)
                .into_iter()
                .for_each(|scalar| draft.translated(scalar.id));
        }
        static_servers(&mut fields, server, draft);
        fields.finish(draft);
        return;
    }
    let section = draft.section(&["backends", &server.backend_name, "discovery"]);
    let at = At::In(section);
    fields.set_home(at);
    let mut source = Source { section, at, draft };
    let is_known = source.kind(kind, &mut fields, server);
    source.common(kind.text, &mut fields);
    fields.finish(draft);
    match is_known {
        true => draft.translated(kind.id),
        false => draft.no_equal(
            kind.id,
            at,
            "gobetween 0.8 has no such discovery; write servers, or another kind",
        ),
    }
}

fn static_servers(fields: &mut Fields<'_>, server: &Server, draft: &mut Draft) {
    let at = At::In(server.backend);
    let list = fields.items(draft, "static_list");
    let read: Vec<_> = list
        .iter()
        .map(|line| (line, static_list::parse(line.text)))
        .collect();
    let hosts: Vec<_> = read
        .iter()
        .filter_map(|(_, listed)| listed.as_ref().map(|listed| listed.host))
        .collect();
    let has_same_host = hosts.iter().collect::<BTreeSet<_>>().len() < hosts.len();
    let is_named = |host: &str| host != "localhost" && host.parse::<IpAddr>().is_err();
    let has_names = hosts.iter().any(|host| is_named(host));
    if has_names && server.has_backend_tls {
        let tls = draft.section(&["backends", &server.backend_name, "tls"]);
        // each server is called as its host, which its certificate has to have
        draft.set(tls, &["server_name"], "server");
    }
    let mut has_ignored_weight = false;
    for (line, listed) in &read {
        let Some(listed) = listed else {
            draft.no_equal(line.id, at, "gobetween takes host:port weight=1 priority=1 max_connections=0 sni=NAME, in this order, single blanks between");
            continue;
        };
        let host = if listed.host == "localhost" {
            "127.0.0.1"
        } else {
            listed.host
        };
        let addr = joined(host, listed.port);
        let name = draft.server_name(&server.backend_name, if has_same_host { &addr } else { host });
        let mut entries = vec![("addr", Value::Text(addr))];
        let mut is_whole = true;
        if server.is_weighted {
            for (key, number) in [("weight", listed.weight), ("priority", listed.priority)] {
                if number > u16::MAX.into() {
                    is_whole = false;
                    draft.differs(line.id, at, "weights and priorities are at most 65535");
                }
                if number != 1 {
                    entries.push((key, Value::from(number.min(u16::MAX.into()))));
                }
            }
        } else {
            has_ignored_weight |= (listed.weight, listed.priority) != (1, 1);
        }
        if listed.max_connections > 0 && !server.is_udp {
            entries.push((
                "max_connections",
                Value::from(listed.max_connections.min(u32::MAX.into())),
            ));
        }
        match (listed.sni, server.sni) {
            (Some(sni), Some(true)) => entries.push(("sni", Value::Text(format!("~{sni}")))),
            (Some(sni), Some(false)) => entries.push(("sni", Value::Text(sni.to_lowercase()))),
            (Some(_), None) => {
                is_whole = false;
                draft.differs(
                    line.id,
                    at,
                    "sni counts for nothing without a section sni of the server, so it is left out",
                );
            }
            (None, _) => {}
        }
        draft.set(server.backend, &["servers", &name], Value::table(entries));
        if is_whole {
            draft.translated(line.id);
        }
    }
    let weights: Vec<_> = read
        .iter()
        .filter_map(|(_, listed)| listed.as_ref().map(|listed| listed.weight))
        .collect();
    if server.is_weighted && !weights.is_empty() && weights.iter().all(|weight| *weight == 0) {
        draft.comment(at, "Every weight is 0: gobetween then takes the servers for equals, Convey takes them out of service. Leave `weight` out.");
    }
    if has_ignored_weight {
        draft.comment(
            at,
            "This balance of gobetween's goes by neither weight nor priority, so they are left out.",
        );
    }
}

/// What belongs to the kinds.
impl Source<'_> {
    /// Sets what belongs to a kind. False if there is no such kind.
    fn kind(&mut self, kind: Scalar<'_>, fields: &mut Fields<'_>, server: &Server) -> bool {
        let section = self.section;
        match kind.text {
            "srv" => {
                self.draft.set(section, &["kind"], "srv");
                self.srv(fields);
                if server.sni.is_some() {
                    self.draft.comment(self.at, "gobetween takes the target of a record for the server's sni; Convey's servers from SRV have none.");
                }
            }
            "docker" => {
                self.draft.set(section, &["kind"], "docker");
                platforms::docker(self, fields);
            }
            "json" => {
                self.draft.set(section, &["kind"], "http");
                self.url(fields, "json_endpoint");
                self.draft.set(section, &["format"], "json");
                self.json(fields);
            }
            "plaintext" => {
                self.draft.set(section, &["kind"], "http");
                self.url(fields, "plaintext_endpoint");
                self.pattern(fields);
            }
            "exec" => {
                self.draft.set(section, &["kind"], "exec");
                self.exec(fields);
            }
            "consul" => {
                self.draft.set(section, &["kind"], "consul");
                platforms::consul(self, fields);
            }
            "lxd" => {
                self.draft.set(section, &["kind"], "lxd");
                platforms::lxd(self, fields);
            }
            _ => return false,
        }
        true
    }

    fn common(&mut self, kind: &str, fields: &mut Fields<'_>) {
        let (section, at) = (self.section, self.at);
        let time = |fields: &mut Fields<'_>, draft: &mut Draft, key| {
            fields.parsed(draft, key, "a time such as \"10s\" or \"0\"", go::duration)
        };
        if let Some((id, interval)) = time(fields, self.draft, "interval") {
            let interval = interval.min(Duration::from_secs(86_400));
            match (interval.is_zero(), kind) {
                (true, _) => self.draft.differs(
                    id,
                    at,
                    "gobetween asks once; Convey goes on asking, every `interval`, and sees changes",
                ),
                (false, "srv") => {
                    self.draft.set(
                        section,
                        &["min_ttl"],
                        Value::duration(interval.min(Duration::from_secs(5))),
                    );
                    self.draft.set(
                        section,
                        &["max_ttl"],
                        Value::duration(interval.max(Duration::from_secs(5))),
                    );
                    self.draft.translated(id);
                }
                (false, _) => {
                    self.draft.set(section, &["interval"], Value::duration(interval));
                    self.draft.translated(id);
                }
            }
        }
        if let Some((id, timeout)) = time(fields, self.draft, "timeout") {
            if !timeout.is_zero() {
                let timeout = timeout.min(Duration::from_secs(600));
                self.draft.set(section, &["timeout"], Value::duration(timeout));
            }
            self.draft.translated(id);
        }
        if let Some(policy) = fields.text(self.draft, "failpolicy") {
            match policy.text {
                "keeplast" => self.draft.translated(policy.id),
                "setempty" => {
                    self.draft.set(section, &["on_failure"], "empty");
                    self.draft.translated(policy.id);
                }
                _ => self
                    .draft
                    .no_equal(policy.id, at, "on_failure is \"keep\" or \"empty\""),
            }
        }
        self.draft.comment(
            at,
            "An answer that would drop more than half of the servers at once, or all of them, is held: see min_servers and max_removal. \
             gobetween obeys every answer.",
        );
    }

    fn srv(&mut self, fields: &mut Fields<'_>) {
        self.text(fields, "srv_lookup_pattern", "name");
        if let Some(server) = fields.text(self.draft, "srv_lookup_server") {
            let is_address =
                server.text.parse::<std::net::SocketAddr>().is_ok() || server.text.parse::<IpAddr>().is_ok();
            match is_address {
                true => {
                    self.draft.set(self.section, &["resolvers"], server.text);
                    self.draft.translated(server.id);
                }
                false => self.draft.no_equal(server.id, self.at, "resolvers are addresses, such as \"10.0.0.53:53\"; without one those of the host are asked"),
            }
        }
        if let Some(protocol) = fields.text(self.draft, "srv_dns_protocol") {
            match protocol.text {
                "udp" => self.draft.translated(protocol.id),
                _ => self.draft.differs(
                    protocol.id,
                    self.at,
                    "name servers are asked by UDP, and by TCP when an answer does not fit",
                ),
            }
        }
    }

    fn json(&mut self, fields: &mut Fields<'_>) {
        let mut paths = Vec::new();
        for name in ["host", "port", "weight", "priority", "sni", "max_connections"] {
            let Some(pattern) = fields.text(self.draft, &format!("json_{name}_pattern")) else {
                continue;
            };
            if pattern.text != name {
                // gojq puts a dot before the number of an element
                paths.push((name, Value::Text(pattern.text.replace(".[", "["))));
            }
            self.draft.translated(pattern.id);
        }
        if !paths.is_empty() {
            self.draft.set(self.section, &["json"], Value::table(paths));
        }
    }

    fn pattern(&mut self, fields: &mut Fields<'_>) {
        let Some(pattern) = fields.text(self.draft, "plaintext_regex_pattern") else {
            self.draft.set(self.section, &["format"], "text");
            return;
        };
        self.draft.set(self.section, &["format"], "regex");
        match pattern.text.parse::<crate::config::LinePattern>() {
            Ok(_) => {
                self.draft.set(self.section, &["pattern"], pattern.text);
                self.draft.translated(pattern.id);
            }
            Err(error) => {
                self.draft
                    .no_equal(pattern.id, self.at, &format!("this cannot be a pattern: {error}"));
            }
        }
    }

    fn exec(&mut self, fields: &mut Fields<'_>) {
        if let Some((id, command)) = fields.list(self.draft, "exec_command") {
            let (program, is_moved) = paths::program(command.first().copied().unwrap_or_default());
            let words = std::iter::once(program.as_str()).chain(command.iter().skip(1).copied());
            let words: Vec<&str> = words.collect();
            self.draft.set(self.section, &["command"], words);
            match is_moved {
                false => self.draft.differs(
                    id,
                    self.at,
                    "it runs as Convey's user, without capabilities: see COMMANDS in convey(8). Its lines name IP addresses, not hosts",
                ),
                true => self.draft.differs(id, self.at, paths::MOVED),
            }
        }
    }
}
