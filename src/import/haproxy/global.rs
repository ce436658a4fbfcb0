//! The process as a whole, and sections that have nothing to do with proxies.

use super::{
    Context,
    file::{Keyword, Line, Section},
    time,
};
use crate::import::{At, Value};

/// Longest line of defaults for each `bind`, in bytes.
const MAX_DEFAULT: usize = 4 << 10;

/// Accounts for a section that is no proxy.
pub fn read(section: &Section, context: &mut Context<'_>) {
    if section.keyword == Keyword::Global {
        context.draft.translated(section.header.id);
        for line in &section.lines {
            global(line, context);
        }
        return;
    }
    let why = match section.header.name() {
        "peers" => {
            "stick tables are not shared: with balance = \"maglev\" load balancers choose alike without it"
        }
        "resolvers" => "names are resolved as this host does it, or by `resolvers` of a backend's discovery",
        "userlist" | "cache" | "http-errors" | "fcgi-app" => "it is about HTTP",
        "mailers" => "see [hooks]: a command is told what happens",
        "program" => "run it as a service of its own",
        "log-forward" | "ring" | "log-profile" => "see connection_log",
        "acme" => "see [acme], and acme of a frontend's tls",
        "crt-store" => "name certificates in `certificates` of a frontend's tls",
        _ => "",
    };
    context.draft.no_equal(section.header.id, At::Top, why);
    for line in &section.lines {
        context.draft.translated(line.id);
    }
}

fn global(line: &Line, context: &mut Context<'_>) {
    let argument = line.word(1);
    match line.name() {
        "crt-base" => argument.clone_into(&mut context.shared.crt_base),
        "ca-base" => argument.clone_into(&mut context.shared.ca_base),
        name if name.starts_with("ssl-default-bind-")
            && line.words.iter().map(String::len).sum::<usize>() > MAX_DEFAULT =>
        {
            return;
        }
        "ssl-default-bind-options" => context.shared.tls_words.extend_from_slice(line.from(1)),
        "ssl-default-bind-ciphers" => tls_words("ciphers", argument, context),
        "ssl-default-bind-ciphersuites" => tls_words("ciphersuites", argument, context),
        "ssl-default-bind-curves" => tls_words("curves", argument, context),
        "hard-stop-after" => match time::parse(argument) {
            Some(time) => set(context, "shutdown_timeout", Value::duration(time)),
            None => return,
        },
        "nbthread" => match argument.parse::<u32>() {
            Ok(threads) => set(context, "workers", threads.into()),
            Err(_) => return,
        },
        _ => return,
    }
    context.draft.translated(line.id);
}

fn tls_words(word: &str, argument: &str, context: &mut Context<'_>) {
    context
        .shared
        .tls_words
        .extend([word.to_owned(), argument.to_owned()]);
}

fn set(context: &mut Context<'_>, key: &str, value: Value) {
    let out = context.draft.section(&["global"]);
    context.draft.set(out, &[key], value);
}
