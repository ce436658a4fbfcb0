//! The checks of all servers of a backend as its one `health_check`.

use super::{Names, blocks::Entry, checks::Check, unknown, virtual_server::VirtualServer};
use crate::import::{At, DirectiveId, Draft, NoteKind, SectionId, Value, address::joined, lvs::Placed};

/// The block `SSL`: what Convey shows servers that it checks.
#[derive(Debug)]
pub struct Ssl {
    id: DirectiveId,
    keys: Vec<(DirectiveId, &'static str, String)>,
}

impl Ssl {
    /// Reads it.
    pub fn read(entry: &Entry, names: &Names<'_>, draft: &mut Draft) -> Self {
        let id = names.register(entry, draft);
        draft.translated(id);
        let mut keys = Vec::new();
        for member in entry.block.iter().flatten() {
            // the password is not to be repeated
            let is_password = member.keyword() == "password";
            let quoted = Entry {
                text: if is_password {
                    "password …".to_owned()
                } else {
                    member.text.clone()
                },
                ..member.clone()
            };
            let id = names.register(&quoted, draft);
            let key = match member.keyword() {
                "ca" => "ca",
                "certificate" => "cert",
                "key" => "key",
                "password" => {
                    draft.no_equal(
                        id,
                        At::Top,
                        "keys are unencrypted: `openssl pkey -in KEY -out PLAIN` decrypts one",
                    );
                    continue;
                }
                keyword => {
                    draft.no_equal(id, At::Top, unknown(keyword));
                    continue;
                }
            };
            match member.word(1) {
                Some(path) => keys.push((id, key, path.to_owned())),
                None => draft.no_equal(id, At::Top, "its value cannot be read"),
            }
        }
        Self { id, keys }
    }
}

/// Writes `health_check` of a backend, and says what of its servers' checks is not in it.
pub fn write(server: &VirtualServer, placed: &Placed, ssl: Option<&Ssl>, draft: &mut Draft) {
    let path = ["backends", placed.name.as_str(), "health_check"];
    let section = draft.section(&path);
    let at = At::In(section);
    let best = |checks: &'_ [Check]| {
        // of equals the first one
        let best = checks
            .iter()
            .enumerate()
            .max_by_key(|(index, check)| (check.rank, std::cmp::Reverse(*index)));
        best.filter(|(_, check)| check.rank > 0).map(|(index, _)| index)
    };
    let chosen =
        (server.checks.iter()).find_map(|of| best(&of.checks).and_then(|index| of.checks.get(index)));
    let Some(chosen) = chosen else {
        return unchecked(server, section, draft);
    };
    let target = common_port(server, best);
    let of_all = |check: &Check| Key {
        keys: check.keys.clone(),
        tls: check.tls.clone(),
    };
    let key = of_all(chosen);
    for (name, value) in &key.keys {
        draft.set(section, &[name], value.clone());
    }
    if let Some(port) = target {
        draft.set(section, &["port"], port);
    }
    if let Some(mut tls) = key.tls.clone() {
        for (id, key, path) in ssl.iter().flat_map(|ssl| &ssl.keys) {
            // without verification nothing depends on it
            if *key != "ca" {
                tls.push((*key, Value::from(path.as_str())));
            }
            draft.translated(*id);
        }
        if let Some(ssl) = ssl {
            draft.translated(ssl.id);
        }
        draft.set(section, &["tls"], Value::table(tls));
    }
    for of in &server.checks {
        let index = best(&of.checks);
        if index.is_none() {
            let text = "it has no check of its own that Convey has, but is checked as the other servers are";
            draft.note(of.id, at, "real_server without a check", NoteKind::Differs, text);
        }
        for (position, check) in of.checks.iter().enumerate() {
            if let Some((kind, text)) = check.instead {
                note(draft, check.id, at, kind, text);
                check.settings.notes(placed, draft);
            } else if Some(position) != index {
                let text = "a backend has one kind of check, and this server has another that says more";
                draft.no_equal(check.id, at, text);
            } else {
                check.settings.notes(placed, draft);
                match of_all(check) == key {
                    true => draft.translated(check.id),
                    false => draft.differs(
                        check.id,
                        at,
                        "the servers of a backend are checked alike, this one as the first",
                    ),
                }
            }
        }
    }
}

/// What has to be the same of all servers.
#[derive(PartialEq)]
struct Key {
    keys: Vec<(&'static str, Value)>,
    tls: Option<Vec<(&'static str, Value)>>,
}

fn note(draft: &mut Draft, id: DirectiveId, at: At, kind: NoteKind, text: &str) {
    match kind {
        NoteKind::Differs => draft.differs(id, at, text),
        NoteKind::NoEqual => draft.no_equal(id, at, text),
    }
}

/// No server has a check that Convey has.
fn unchecked(server: &VirtualServer, section: SectionId, draft: &mut Draft) {
    let at = At::In(section);
    draft.comment(
        at,
        "keepalived takes servers without a check for up, always. Without this line Convey connects to each every 2 s, or every `interval`.",
    );
    draft.set(section, &["enabled"], false);
    for check in server.checks.iter().flat_map(|of| &of.checks) {
        if let Some((kind, text)) = check.instead {
            note(draft, check.id, at, kind, text);
        }
    }
}

/// The port at which all servers are checked, if it is one other than theirs and at their own addresses.
fn common_port(server: &VirtualServer, best: impl Fn(&[Check]) -> Option<usize>) -> Option<u16> {
    let mut ports = server
        .checks
        .iter()
        .zip(&server.service.servers)
        .map(|(of, real)| {
            let check = of.checks.get(best(&of.checks)?)?;
            let (ip, port) = check.target?;
            (ip == real.ip).then_some(port)
        });
    let first = ports.next()??;
    ports.all(|port| port == Some(first)).then_some(first)
}

/// Where each server is checked, if not at its address nor at a port of all of them.
pub fn targets(server: &mut VirtualServer) {
    let best = |checks: &[Check]| checks.iter().map(|check| check.rank).max();
    let index = |checks: &[Check]| {
        checks
            .iter()
            .position(|check| Some(check.rank) == best(checks) && check.rank > 0)
    };
    if common_port(server, index).is_some() {
        return;
    }
    for (of, real) in server.checks.iter().zip(&mut server.service.servers) {
        let check = index(&of.checks).and_then(|index| of.checks.get(index));
        if let Some((ip, port)) = check.and_then(|check| check.target) {
            real.check_addr = Some(joined(&ip.to_string(), port));
        }
    }
}
