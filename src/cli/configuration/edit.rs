//! `convey config edit`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use hyper::Method;

use super::{editor::Copy, in_words, writable};
use crate::{
    admin::views::CheckedConfig,
    base::exit,
    cli::{
        applied::{interpret, tell},
        args::ConfigEditArgs,
        client::{Asked, Client, Patience},
        compare::{compare, in_a_line},
        outcome::{CommandResult, Failure},
        settle::{self, Before},
        text::harmless,
    },
};

/// What somebody says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Yes,
    No,
    Edit,
}

/// Has the text edited, checked, shown, and applied.
pub fn run(args: &ConfigEditArgs, client: &Client) -> CommandResult {
    let file = writable(client)?;
    if !args.yes && !io::stdin().is_terminal() {
        return Err(Failure::new(
            exit::USAGE,
            "nobody can be asked: standard input is no terminal; --yes applies a valid text without asking",
        ));
    }
    let before = Before::look(client, args.settle)?;
    let shown = client.get("/v1/config")?;
    let (text, tag) = (shown.content()?, shown.tag.as_deref());
    let mut copy = Copy::of(text)?;
    let edited = match edited(&mut copy, text, args.yes, client) {
        Ok(Some(edited)) => edited,
        Ok(None) => return Ok(exit::OK),
        Err(failure) => return Err(kept(copy, failure)),
    };
    let asked = Asked {
        if_match: tag,
        patience: Patience::Long,
        ..Asked::of(Method::PUT, "/v1/config").with_toml(edited)
    };
    let reloaded = match client.send(asked).and_then(|answer| interpret(&answer)) {
        Ok(reloaded) => reloaded,
        Err(failure) => return Err(kept(copy, failure)),
    };
    writeln!(io::stdout(), "wrote {}", harmless(&file))?;
    tell(&reloaded)?;
    settle::settle(client, args.settle, &reloaded, before)
}

/// The text that somebody wants; `None` if nothing is to be changed.
fn edited(copy: &mut Copy, before: &[u8], yes: bool, client: &Client) -> Result<Option<Vec<u8>>, Failure> {
    loop {
        copy.edit()?;
        let text = copy.read()?;
        if text == before {
            writeln!(io::stdout(), "not edited: nothing was changed")?;
            return Ok(None);
        }
        let is_valid = check(client, &text)?;
        if !is_valid {
            let invalid = || Failure::new(exit::CONFIG, "the text has errors; nothing was changed");
            match yes || ask("edit it again? [Y/n] ")? == Said::No {
                true => return Err(invalid()),
                false => continue,
            }
        }
        let found = compare(client, text.clone())?;
        io::stdout().write_all(harmless(&in_words(&found, "it")).as_bytes())?;
        if let Some(cut) = &found.cut {
            writeln!(io::stdout(), "would be refused: {}", harmless(&cut.why))?;
        }
        match yes {
            true => return Ok(Some(text)),
            false => match ask("apply it? [y]es, [n]o, [e]dit again: ")? {
                Said::Yes => return Ok(Some(text)),
                Said::Edit => {}
                Said::No => {
                    copy.keep();
                    let place = copy.path().display();
                    writeln!(io::stdout(), "nothing was changed; the edited text is in {place}")?;
                    return Ok(None);
                }
            },
        }
    }
}

/// Tells what is wrong with a text; whether it can be used.
fn check(client: &Client, text: &[u8]) -> Result<bool, Failure> {
    let asked = Asked::of(Method::POST, "/v1/config/check").with_toml(text.to_vec());
    let checked: CheckedConfig = client.send(asked)?.parse()?;
    let findings: String = checked.findings.iter().map(in_a_line).collect();
    io::stderr().write_all(findings.as_bytes())?;
    Ok(checked.valid)
}

fn ask(question: &str) -> Result<Said, Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    let length = (io::stdin().lock().read_line(&mut line))
        .map_err(|error| Failure::new(exit::IO, format!("cannot read the answer: {error}")))?;
    // whoever is gone agrees to nothing
    Ok(if length == 0 { Said::No } else { said(&line) })
}

/// What an answer means: to the first question all but a no is "again".
fn said(line: &str) -> Said {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Said::Yes,
        "n" | "no" => Said::No,
        _ => Said::Edit,
    }
}

/// The edited text is somebody's work: it stays.
fn kept(mut copy: Copy, failure: Failure) -> Failure {
    copy.keep();
    match failure {
        Failure::Told { exit, message } => Failure::new(
            exit,
            format!("{message}\nthe edited text is in {}", copy.path().display()),
        ),
        gone @ Failure::ReaderGone => gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_applies_a_text() {
        for (line, meaning) in [
            ("y\n", Said::Yes),
            ("YES\n", Said::Yes),
            ("n\n", Said::No),
            ("e\n", Said::Edit),
            ("\n", Said::Edit),
            ("yep\n", Said::Edit),
        ] {
            assert_eq!(said(line), meaning, "{line:?}");
        }
    }
}
