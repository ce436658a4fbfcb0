//! HAProxy's configuration, as versions 2.x and 3.x read it.

mod file;
mod words;

use std::collections::BTreeMap;

use super::{
    At, Draft, Files, InputFile, SectionId, Unreadable,
    address::{self, HostPort},
};
use file::{Keyword, Line, Section};

/// Translates a file.
///
/// # Errors
/// It is no configuration of HAProxy.
pub fn translate(file: &InputFile, draft: &mut Draft, _files: &mut dyn Files) -> Result<(), Unreadable> {
    let sections = file::read(file, draft)?;
    let mut backends = BTreeMap::new();
    for section in &sections {
        if matches!(section.keyword, Keyword::Backend | Keyword::Listen) {
            let name = draft.backend_name(&section.name);
            backends.insert(section.name.as_str(), name);
        }
    }
    for section in &sections {
        if matches!(section.keyword, Keyword::Frontend | Keyword::Listen) {
            frontend(section, &backends, draft);
        }
    }
    for section in &sections {
        if let Some(name) = backends.get(section.name.as_str()) {
            if matches!(section.keyword, Keyword::Backend | Keyword::Listen) {
                backend(section, name, draft);
            }
        }
    }
    Ok(())
}

fn frontend(section: &Section, backends: &BTreeMap<&str, String>, draft: &mut Draft) {
    let name = draft.frontend_name(&section.name);
    let out = draft.section(&["frontends", &name]);
    draft.translated(section.header.id);
    if section.keyword == Keyword::Listen {
        if let Some(backend) = backends.get(section.name.as_str()) {
            draft.set(out, &["backend"], backend.as_str());
        }
    }
    for line in &section.lines {
        draft.home(line.id, At::In(out));
        match (line.name(), line.from(1)) {
            ("bind", [address]) => bind(line, address, out, draft),
            ("default_backend", [backend]) => {
                if let Some(backend) = backends.get(backend.as_str()) {
                    draft.set(out, &["backend"], backend.as_str());
                    draft.translated(line.id);
                }
            }
            ("mode", [mode]) if mode == "tcp" => draft.translated(line.id),
            _ => {}
        }
    }
}

fn bind(line: &Line, address: &str, out: SectionId, draft: &mut Draft) {
    let HostPort { host, port } = HostPort::parse(address, true);
    let host = match host.as_str() {
        "" | "*" => "0.0.0.0",
        host => host,
    };
    if let Some(port) = port.as_deref().and_then(address::port) {
        draft.set(out, &["listen_addr"], address::joined(host, port));
        draft.translated(line.id);
    }
}

fn backend(section: &Section, name: &str, draft: &mut Draft) {
    let out = draft.section(&["backends", name]);
    draft.translated(section.header.id);
    for line in &section.lines {
        if let ("server", [server, address]) = (line.name(), line.from(1)) {
            let server = draft.server_name(name, server);
            draft.set(
                out,
                &["servers", &server],
                super::Value::table([("addr", address.as_str())]),
            );
            draft.translated(line.id);
        } else if section.keyword == Keyword::Backend {
            draft.home(line.id, At::In(out));
        }
    }
}
