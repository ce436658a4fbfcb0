//! gobetween's configuration, version 0.8: TOML or JSON.

mod checks;
mod discovery;
mod go;
mod model;
mod platforms;
mod process;
mod server;
mod source;
mod static_list;
mod tls;

use super::{
    At, Draft, Files, InputFile, Unreadable,
    fields::{Case, Document, Fields},
    tree,
};

/// Translates a file.
///
/// # Errors
/// It is no TOML and no JSON, or has none of gobetween's sections.
pub fn translate(file: &InputFile, draft: &mut Draft, _files: &mut dyn Files) -> Result<(), Unreadable> {
    let document = tree::toml_or_json(&file.text)
        .map_err(|error| Unreadable::new(&file.name, error.line, error.message))?;
    let table = document.table().into_iter().flatten().cloned().collect();
    let shape = Document {
        file: &file.name,
        case: Case::Folded,
        unknown: "gobetween 0.8 has no such key here and ignores it: look at its spelling",
    };
    let mut root = Fields::new(shape, &table, At::Top);
    if !["servers", "defaults", "logging", "api"]
        .iter()
        .any(|key| root.has(key))
    {
        let message = "there is no section of gobetween, such as [servers.web]";
        return Err(Unreadable::new(&file.name, 1, message));
    }
    let has_acme = root.has("acme");
    process::translate(&mut root, draft);
    let none = || Fields::none(shape, At::Top);
    let mut defaults = root.table(draft, "defaults", At::Top).unwrap_or_else(none);
    let defaults = server::Options::read(&mut defaults, draft).and_finish(defaults, draft);
    let mut servers = root.table(draft, "servers", At::Top).unwrap_or_else(none);
    let named = servers.named(draft);
    if !named.is_empty() {
        draft.comment(
            At::Top,
            "Convey does some things that gobetween does not: a connect that fails is tried again on other servers (retries = 2), a server \
             whose connects fail is left alone for a while (passive_check), idle connections are probed (client_keepalive, \
             server_keepalive), and a connect without a limit of its own has one of 5s (connect_timeout).",
        );
    }
    for (name, fields) in named {
        server::translate(name, fields, &defaults, has_acme, draft);
    }
    servers.finish(draft);
    root.finish(draft);
    Ok(())
}
