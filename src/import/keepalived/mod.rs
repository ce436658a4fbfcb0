//! keepalived's configuration: its virtual servers are translated; what moves addresses between hosts stays with keepalived.

mod blocks;
mod checks;
mod group;
mod health;
mod lines;
mod settings;
mod timeouts;
mod virtual_server;

use std::collections::BTreeMap;

use super::{At, DirectiveId, Draft, Files, InputFile, NoteKind, Unreadable, lvs};
use blocks::Entry;
use group::Group;
use timeouts::Timeouts;
use virtual_server::Listen;

/// Most addresses that groups stand for in all virtual servers.
const MOST_ADDRESSES: usize = 65_536;

/// Translates a file.
///
/// # Errors
/// It is no configuration of keepalived.
pub fn translate(file: &InputFile, draft: &mut Draft, files: &mut dyn Files) -> Result<(), Unreadable> {
    let lines = lines::read(file, draft, files)?;
    let entries = blocks::read(&lines)?;
    if !entries.iter().any(|entry| belongs(entry.keyword()).is_some()) {
        let message = "there is no block of keepalived, such as `virtual_server 192.0.2.1 80 {`";
        return Err(Unreadable::new(&file.name, 1, message));
    }
    let names = Names(&lines.files);
    let mut groups = BTreeMap::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.keyword() == "virtual_server_group")
    {
        let group = Group::read(entry, &names, draft);
        groups.insert(entry.word(1).unwrap_or_default().to_owned(), group);
    }
    let ssl = entries.iter().find(|entry| entry.keyword() == "SSL");
    let ssl = ssl.map(|entry| health::Ssl::read(entry, &names, draft));
    if entries.iter().any(|entry| entry.keyword() == "virtual_server") {
        draft.comment(
            At::Top,
            "Take the virtual_server blocks out of keepalived's own file when Convey takes over: the kernel's IPVS takes packets before \
             Convey's proxied sockets get them. The rest of that file stays as it is.",
        );
    }
    let timeouts = Timeouts::read(&entries, &names, draft);
    let mut all = Vec::new();
    let mut left = MOST_ADDRESSES;
    for entry in &entries {
        match entry.keyword() {
            "virtual_server" => {
                all.extend(virtual_server(
                    entry,
                    &groups,
                    (ssl.as_ref(), &timeouts),
                    &names,
                    &mut left,
                    draft,
                ));
            }
            "virtual_server_group" | "SSL" => {}
            keyword => {
                let id = names.register(entry, draft);
                let text = belongs(keyword).unwrap_or_else(|| unknown(keyword));
                draft.no_equal(id, At::Top, text);
            }
        }
    }
    lvs::about_proxied(&all, draft);
    for group in groups.values() {
        group.unused(draft);
    }
    Ok(())
}

/// What becomes of a block; `None` if keepalived has none of that name.
fn belongs(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "virtual_server" | "virtual_server_group" | "SSL" => "",
        "vrrp_instance" | "vrrp_sync_group" => {
            "it stays with keepalived, which moves addresses between hosts; Convey serves an address wherever it is"
        }
        "vrrp_script" | "vrrp_track_process" | "track_process" | "track_file" | "vrrp_track_file"
        | "garp_group" => {
            "it stays with keepalived; `convey status` is what a vrrp_script can ask whether this host serves"
        }
        "bfd_instance" | "interface_up_down_delays" | "linkbeat_interfaces" | "linkbeat_use_polling" => {
            "it stays with keepalived"
        }
        "static_ipaddress" | "static_routes" | "static_rules" | "static_track_group" => {
            "it stays with keepalived, or with what configures this host's network"
        }
        "global_defs" => "it stays with keepalived; of Convey's own events [hooks] on_change tells a command",
        "net_namespace"
        | "net_namespace_ipvs"
        | "namespace_with_ipsets"
        | "instance"
        | "use_pid_dir"
        | "child_wait_time"
        | "daemon"
        | "nftables" => "it is about keepalived's own processes",
        _ => return None,
    })
}

/// What is said of a keyword that a place does not have.
fn unknown(keyword: &str) -> &'static str {
    match keyword.chars().next() {
        Some('@') => {
            "only a host with that configuration id has it, so it is left out: write here what this host has"
        }
        Some('~') => "sequences and lists are not written out here: write the lines that they stand for",
        _ => "keepalived 2.2 has no such keyword here",
    }
}

fn virtual_server(
    entry: &Entry,
    groups: &BTreeMap<String, Group>,
    (ssl, timeouts): (Option<&health::Ssl>, &Timeouts),
    names: &Names<'_>,
    left: &mut usize,
    draft: &mut Draft,
) -> Vec<lvs::Placed> {
    let id = names.register(entry, draft);
    if let (Some("group"), Some(more @ [_, ..])) = (entry.word(1), entry.words.get(3..)) {
        let text = "a group has its ports in itself, and the name alone follows `group`: this is left out";
        draft.note(id, At::Top, &more.join(" "), NoteKind::Differs, text);
    }
    let listen = match virtual_server::listen(entry, groups) {
        Ok(listen) => listen,
        Err(why) => {
            draft.no_equal(id, At::Top, why);
            if let Some(group) = virtual_server::group(entry, groups) {
                group.used(draft);
                group.notes(At::Top, draft);
            }
            return Vec::new();
        }
    };
    if let Listen::Group(group) = &listen {
        group.used(draft);
        match left.checked_sub(group.listen.len()) {
            Some(rest) => *left = rest,
            None => {
                draft.no_equal(
                    id,
                    At::Top,
                    "groups are not written out for more than 65536 addresses in all",
                );
                return Vec::new();
            }
        }
    }
    let mut server = virtual_server::read(entry, id, &listen, names, draft);
    timeouts.apply(&mut server.service);
    health::targets(&mut server);
    let has_protocol = entry
        .block
        .iter()
        .flatten()
        .any(|member| member.keyword() == "protocol");
    let parts = lvs::translate(&server.service, draft);
    for placed in &parts {
        if !has_protocol {
            let text = "A virtual_server without `protocol` is one of UDP for keepalived 2.2. If TCP is meant, leave `protocol` out here.";
            draft.comment(At::In(placed.frontend), text);
        }
        if let Listen::Group(group) = &listen {
            group.notes(At::In(placed.frontend), draft);
        }
        server.settings.notes(placed, draft);
        health::write(&server, placed, ssl, draft);
    }
    parts
}

/// Names of the files that entries are from.
pub struct Names<'a>(&'a [String]);

impl Names<'_> {
    /// Registers an entry as a directive.
    pub fn register(&self, entry: &Entry, draft: &mut Draft) -> DirectiveId {
        let file = self.0.get(entry.file).map_or("", String::as_str);
        draft.directive(file, entry.line, &entry.text, At::Top)
    }
}
