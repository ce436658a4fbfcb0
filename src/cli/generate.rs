//! `convey completions` and `convey generate-man`: what is made from the grammar.

use std::{fs, io::Write, path::Path};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{
    args::{Cli, CompletionsArgs},
    man_config,
    outcome::{CommandResult, Failure},
};
use crate::{
    base::{AccessReason, Alert, DatagramDrop, PacketReason, ServerTlsFailure, TerminationReason, exit},
    config,
    tls::HandshakeFailure,
};

/// Section of system administration.
const SECTION: &str = "8";

/// What convey(8) says besides the grammar, in roff.
const MORE: &str = include_str!("man.roff");

/// The line of it in whose place the reasons stand.
const ENDS_GO_HERE: &str = ".\\\" reasons\n";

/// What the page of a subcommand ends with.
const SEE_ALSO: &str = ".SH \"SEE ALSO\"\n.BR convey (8)\n";

/// The subcommand whose page explains what its output says of packets.
const EXPLAINS_VERDICTS: &str = "convey-status.8";

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> CommandResult {
    let whole = Cli::command();
    // hidden commands would be offered
    let mut shown = Command::new("convey")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(whole.get_arguments())
        .subcommands(whole.get_subcommands().filter(|s| !s.is_hide_set()));
    // into memory first: the generator panics when its writer fails
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown, "convey", &mut script);
    let script = with_names(args.shell, String::from_utf8_lossy(&script).into_owned());
    let mut out = std::io::stdout().lock();
    out.write_all(script.as_bytes())?;
    out.flush()?;
    Ok(exit::OK)
}

/// What completes an argument of the script for zsh with names, by the beginning of its line.
const ZSH_NAMES: [(&str, &str); 11] = [
    ("'--frontend=[", "frontends"),
    ("'--backend=[", "backends"),
    ("'--server=[", "servers"),
    ("'*::names -- ", "any"),
    ("'*::servers -- ", "pairs"),
    ("'*::servers_and_weight -- ", "pairs"),
    ("'*::backends -- ", "backends"),
    ("'*::backends_and_weight -- ", "backends"),
    ("':backend -- ", "backends"),
    ("':frontend -- ", "frontends"),
    ("':server -- ", "servers"),
];

/// A script that knows the names of frontends, backends and servers, for the shells that most people use.
fn with_names(shell: Shell, mut script: String) -> String {
    match shell {
        Shell::Bash => script + include_str!("completion/names.bash"),
        Shell::Fish => script + include_str!("completion/names.fish"),
        Shell::Zsh => {
            let line = |line: &str| {
                let kind = ZSH_NAMES
                    .iter()
                    .find(|(beginning, _)| line.starts_with(beginning));
                match (kind, line.strip_suffix(":_default' \\\n")) {
                    (Some((_, kind)), Some(rest)) => format!("{rest}:_convey_names_{kind}' \\\n"),
                    _ => line.to_owned(),
                }
            };
            script = script.split_inclusive('\n').map(line).collect();
            // before the call at its end
            let at = script.rfind("\nif [ ").map_or(script.len(), |at| at + 1);
            script.insert_str(at, include_str!("completion/names.zsh"));
            script
        }
        _ => script,
    }
}

/// Writes convey(8), one page for each subcommand, and convey.toml(5).
pub fn man_pages(directory: &Path) -> CommandResult {
    for (name, page) in pages()? {
        let path = directory.join(name);
        fs::write(&path, page)
            .map_err(|error| Failure::new(exit::IO, format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(exit::OK)
}

/// File names and contents.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    // a page for `convey help` would say nothing
    let mut root = Cli::command().disable_help_subcommand(true);
    // gives the subcommands their full names, and each a help option, which its page shall not repeat
    root.build();
    // NAME has a noun phrase without an article (man-pages(7))
    let root = root.about("layer-4 load balancer");
    let mut pages = Vec::new();
    collect(&root, &MORE.replace(ENDS_GO_HERE, &ends()), &mut pages)?;
    let reference = man_config::page(&config::schema());
    pages.push((man_config::FILE_NAME.to_owned(), reference.into_bytes()));
    Ok(pages)
}

fn collect(command: &Command, ending: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|s| !s.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if man.get_filename() == EXPLAINS_VERDICTS {
        page.extend_from_slice(verdicts().as_bytes());
    }
    page.extend_from_slice(ending.as_bytes());
    pages.push((man.get_filename(), page));
    for subcommand in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        collect(subcommand, SEE_ALSO, pages)?;
    }
    Ok(())
}

/// Words with their sentences, in roff.
fn entries(all: impl Iterator<Item = (String, &'static str)>) -> String {
    all.map(|(label, sentence)| {
        format!(
            ".TP\n.B {}\n{}.\n",
            man_config::escape(&label),
            man_config::escape(sentence)
        )
    })
    .collect()
}

/// What each verdict on a packet means, and each alert, in roff.
fn verdicts() -> String {
    let packets = PacketReason::ALL.iter();
    let packets = packets.map(|reason| (reason.label().to_owned(), reason.sentence()));
    let alerts = Alert::ALL.map(|alert| (alert.label().to_owned(), alert.sentence()));
    format!(
        ".SH \"PACKET VERDICTS\"\nThe packet modes count what they did with each packet.\n{}\
         .SH ALERTS\nWhat an operator should look at is noted beside the server or below the heading of the packet \
         modes, and logged as an event of this name. A shortage is noted until it has been over for a minute, and \
         logged at most once a minute; that no handshake completes is noted until one does, and logged once.\n{}",
        entries(packets),
        entries(alerts.into_iter())
    )
}

/// Why connections end and are refused, in roff.
fn ends() -> String {
    let mut ended = TerminationReason::ALL
        .map(|reason| (format!("{} {}", reason.code(), reason.label()), reason.sentence()));
    ended.sort();
    let handshakes = HandshakeFailure::ALL.map(|why| (why.label().to_owned(), why.sentence()));
    let to_servers = ServerTlsFailure::ALL.map(|why| (why.label().to_owned(), why.sentence()));
    let dropped = DatagramDrop::ALL.map(|reason| (reason.label().to_owned(), reason.sentence()));
    let refused = AccessReason::ALL.map(|reason| (reason.label().to_owned(), reason.sentence()));
    format!(
        "{}.PP\nWhy a TLS handshake failed\n.RB ( tls_failure ):\n{}.PP\nWhy there was no TLS with a server\n.RB ( server_tls_failure ):\n{}.PP\nA connection that access rules or limits refuse is reset at once, and counted by reason: at the frontend in\n\
         .BR \"convey status \\-\\-json\" ,\nand in one event a minute\n.RB ( connections_refused ).\n{}.PP\nDatagrams that the UDP proxy drops are counted in the same way\n.RB ( datagrams_dropped ).\n{}",
        entries(ended.into_iter()),
        entries(handshakes.into_iter()),
        entries(to_servers.into_iter()),
        entries(refused.into_iter()),
        entries(dropped.into_iter())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_that_is_a_name_is_completed_by_names_in_zsh() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Zsh, &mut Cli::command(), "convey", &mut script);
        let script = with_names(Shell::Zsh, String::from_utf8(script).expect("UTF-8"));
        for (beginning, kind) in ZSH_NAMES {
            let completed = |line: &str| {
                line.starts_with(beginning) && line.ends_with(&format!(":_convey_names_{kind}' \\"))
            };
            assert!(script.lines().any(completed), "{beginning}");
            assert!(script.contains(&format!("_convey_names_{kind}() {{")), "{kind}");
        }
        let (functions, call) = script.split_at(script.rfind("\nif [ ").expect("the call"));
        assert!(functions.contains("_convey_names() {") && !call.contains("_convey_names() {"));
    }

    #[test]
    fn there_is_a_page_for_convey_and_each_visible_subcommand() {
        let pages = pages().expect("pages");
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "convey.8",
            "convey-check.8",
            "convey-server.8",
            "convey-server-weight.8",
        ] {
            assert!(names.contains(&name), "{name} of {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("generate")), "{names:?}");
        assert!(names.contains(&man_config::FILE_NAME), "{names:?}");
        for (name, page) in pages.iter().filter(|(name, _)| name.ends_with(".8")) {
            let text = String::from_utf8_lossy(page);
            assert!(
                text.contains(".SH DESCRIPTION") && text.contains(".SH SYNOPSIS"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_page_of_status_explains_every_verdict_and_alert() {
        let pages = pages().expect("pages");
        let (_, page) =
            (pages.iter().find(|(name, _)| name == EXPLAINS_VERDICTS)).expect("a page of its own");
        let text = String::from_utf8_lossy(page);
        let labels = PacketReason::ALL.iter().map(|reason| reason.label());
        for label in labels.chain(Alert::ALL.iter().map(|alert| alert.label())) {
            assert!(text.contains(&format!(".TP\n.B {label}\n")), "{label}");
        }
    }

    #[test]
    fn the_page_of_convey_explains_every_reason_of_an_end_and_a_refusal() {
        let pages = pages().expect("pages");
        let (_, page) = (pages.iter().find(|(name, _)| name == "convey.8")).expect("the page");
        let text = String::from_utf8_lossy(page);
        for reason in TerminationReason::ALL {
            let code = man_config::escape(reason.code());
            let heading = format!(".TP\n.B {code} {}\n", reason.label());
            assert!(text.contains(&heading), "{heading}{text}");
        }
        for reason in AccessReason::ALL {
            let heading = format!(".TP\n.B {}\n", reason.label());
            assert!(text.contains(&heading), "{heading}{text}");
        }
    }
}
