//! `convey config`.

mod edit;
mod editor;

use std::{io::Write as _, path::Path};

use super::{
    applied::{interpret, tell},
    args::{ConfigCommand, ConfigDiffArgs, ConfigHistoryArgs, ConfigRollbackArgs, ConfigShowArgs},
    client::{Client, Patience},
    compare::{compare, warnings},
    outcome::{CommandResult, Failure},
    table::{Align, Table},
    target::read_config,
    text::{Cell, colour_wanted, harmless, terminal_columns},
};
use crate::{
    admin::views::{ConfigDiff, ConfigHistory, Info, Revision, Rollback},
    base::exit,
};

/// Shows, compares, edits or rolls back the configuration.
pub fn run(command: &ConfigCommand, client: &Client) -> CommandResult {
    match command {
        ConfigCommand::Show(args) => show(args, client),
        ConfigCommand::Diff(args) => diff(args, client),
        ConfigCommand::History(args) => history(args, client),
        ConfigCommand::Rollback(args) => roll_back(args, client),
        ConfigCommand::Edit(args) => edit::run(args, client),
    }
}

fn show(args: &ConfigShowArgs, client: &Client) -> CommandResult {
    let mut out = std::io::stdout().lock();
    if args.resolved {
        let resolved: serde_json::Value = client.get("/v1/config/resolved")?.parse()?;
        serde_json::to_writer_pretty(&mut out, &resolved).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        let target = match args.revision {
            Some(revision) => format!("/v1/config/history/{revision}"),
            None => "/v1/config".to_owned(),
        };
        out.write_all(client.get(&target)?.content()?)?;
    }
    out.flush()?;
    Ok(exit::OK)
}

fn diff(args: &ConfigDiffArgs, client: &Client) -> CommandResult {
    let source = match &args.file {
        Some(file) => read_config(Some(file))?,
        None => {
            let info: Info = client.get("/v1/info")?.parse()?;
            read_config(Some(Path::new(&info.config_file)))?
        }
    };
    let found = compare(client, source.bytes)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &found).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        std::io::stderr().write_all(warnings(&found).as_bytes())?;
        out.write_all(harmless(&in_words(&found, &source.name)).as_bytes())?;
    }
    out.flush()?;
    Ok(exit::OK)
}

/// The lines that differ, and what that means.
fn in_words(found: &ConfigDiff, name: &str) -> String {
    if found.lines.is_empty() {
        return format!("{name} is what is in effect\n");
    }
    let mut out = found.lines.clone();
    if !out.ends_with('\n') {
        out.push('\n');
    }
    if found.changes.is_empty() {
        out.push_str("\nchanges nothing\n");
    } else {
        out.push_str("\nchanges:\n");
        for change in &found.changes {
            out.push_str(&format!("  {change}\n"));
        }
    }
    if !found.needs_restart.is_empty() {
        out.push_str(&format!(
            "takes effect after a restart alone: {}\n",
            found.needs_restart.join(", ")
        ));
    }
    out
}

fn history(args: &ConfigHistoryArgs, client: &Client) -> CommandResult {
    let history: ConfigHistory = client.get("/v1/config/history")?.parse()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &history).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        let (colour, width) = (colour_wanted(&out), terminal_columns(&out));
        out.write_all(draw(&history.revisions, width, colour).as_bytes())?;
    }
    out.flush()?;
    Ok(exit::OK)
}

fn draw(revisions: &[Revision], width: Option<usize>, colour: bool) -> String {
    if revisions.is_empty() {
        return "no history: is [global] state_dir writable?\n".to_owned();
    }
    let mut table = Table::new(&[
        ("REVISION", Align::Right),
        ("IN EFFECT SINCE", Align::Left),
        ("BY", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for revision in revisions {
        let changes = match revision.changes.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first, more @ ..] => format!("{first} (and {} more)", more.len()),
        };
        table.row(vec![
            Cell::plain(revision.revision),
            Cell::plain(&revision.at),
            Cell::plain(&revision.by),
            Cell::plain(changes),
        ]);
    }
    table.fit(width, &["BY"]).render(colour)
}

fn roll_back(args: &ConfigRollbackArgs, client: &Client) -> CommandResult {
    writable(client)?;
    let rollback = Rollback {
        revision: args.revision,
    };
    let body = serde_json::to_vec(&rollback)
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("cannot write the request: {error}")))?;
    let answer = client.post("/v1/config/rollback", Some(body), Patience::Long)?;
    tell(&interpret(&answer)?)?;
    Ok(exit::OK)
}

/// Whether the running convey writes its configuration; its file if it does.
///
/// # Errors
/// It does not: with what to do.
fn writable(client: &Client) -> Result<String, Failure> {
    let info: Info = client.get("/v1/info")?.parse()?;
    if info.allow_config_writes {
        return Ok(info.config_file);
    }
    Err(Failure::new(
        exit::NO_PERMISSION,
        format!(
            "the running convey may not write {0}: edit it yourself (`convey config show --revision N` prints a text of \
             before) and run `convey reload`; or set allow_config_writes = true in [admin], let its user write there, and restart it \
             (see \"The admin API\" in the README)",
            info.config_file
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_as_lines_and_as_what_it_means() {
        let mut found = ConfigDiff {
            changes: vec!["backend web: server a: weight 1 -> 3".into()],
            needs_restart: vec!["global.workers".into()],
            lines: "--- in effect\n+++ new\n-1\n+3".into(),
            ..ConfigDiff::default()
        };
        assert_eq!(
            in_words(&found, "c.toml"),
            "--- in effect\n+++ new\n-1\n+3\n\nchanges:\n  backend web: server a: weight 1 -> 3\n\
             takes effect after a restart alone: global.workers\n"
        );
        found.changes.clear();
        found.needs_restart.clear();
        assert!(
            in_words(&found, "c.toml").ends_with("+3\n\nchanges nothing\n"),
            "comments"
        );
        assert_eq!(
            in_words(&ConfigDiff::default(), "c.toml"),
            "c.toml is what is in effect\n"
        );
    }

    #[test]
    fn the_history_has_a_line_for_each_text_with_its_first_change() {
        let revision = |revision, changes: &[&str]| Revision {
            revision,
            at: "2026-11-30T09:00:00Z".into(),
            by: "start".into(),
            generation: 1,
            changes: changes.iter().map(|change| (*change).to_owned()).collect(),
            bytes: 7,
        };
        let drawn = draw(
            &[revision(12, &["a: added", "b: added"]), revision(1, &[])],
            None,
            false,
        );
        assert_eq!(
            drawn,
            "REVISION  IN EFFECT SINCE       BY     NOTE\n\
             \u{20}     12  2026-11-30T09:00:00Z  start  a: added (and 1 more)\n\
             \u{20}      1  2026-11-30T09:00:00Z  start\n"
        );
    }
}
