//! The configuration file.

use std::{collections::BTreeSet, path::Path};

use super::finding::{Area, Diagnosis, Level};
use crate::{
    base::exit,
    cli::{args::ModeArgs, check, client::Client, outcome::Failure, target::read_config},
    config::{Config, Diagnostic, Severity},
};

/// The file as far as it could be read.
#[derive(Debug, Default)]
pub struct Looked {
    /// Its text.
    pub text: Option<Vec<u8>>,
    /// What it says, if it has no errors.
    pub config: Option<Config>,
    /// Files of which something was said.
    pub files: BTreeSet<String>,
}

/// Everything that `convey check` says.
pub fn look(path: Option<&Path>, mode: ModeArgs, found: &mut Diagnosis) -> Looked {
    let source = match read_config(path) {
        Ok(source) => source,
        Err(Failure::Told { exit, message }) => {
            match exit {
                // somebody else's file may be as it should be
                exit::NO_PERMISSION => {
                    found.unseen(Area::Configuration, format!("{message} (run it with sudo)"));
                }
                _ => found.error(
                    Area::Configuration,
                    message,
                    "name the file with -c; convey init writes one to start from",
                ),
            }
            return Looked::default();
        }
        Err(Failure::ReaderGone) => return Looked::default(),
    };
    let checked = check::look(&source, mode.options(), None);
    let (findings, config) = match checked {
        Ok(loaded) => (loaded.warnings, Some(loaded.config)),
        Err(findings) => (findings, None),
    };
    for finding in &findings {
        tell(finding, &source.name, found);
    }
    for note in config.iter().flat_map(|config| check::notes(config, None)) {
        // who says so says what to do, too
        found.note(
            Area::Configuration,
            note,
            format!("see `convey check -c {}`", source.name),
        );
    }
    Looked {
        text: Some(source.bytes),
        config,
        files: findings.into_iter().map(|finding| finding.file).collect(),
    }
}

fn tell(finding: &Diagnostic, file: &str, found: &mut Diagnosis) {
    let level = match finding.severity {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warning,
    };
    let place = match finding.line {
        0 => finding.file.clone(),
        line => format!("{}:{line}:{}", finding.file, finding.column),
    };
    let remedy = finding
        .help
        .clone()
        .unwrap_or_else(|| format!("see `convey check -c {file}`"));
    let area = match finding.path.contains("tls") {
        true => Area::Certificates,
        false => Area::Configuration,
    };
    found.add(level, area, format!("{place}: {}", finding.message), remedy);
}

/// Whether the file is what is in effect.
pub fn compare(client: &Client, text: Option<&[u8]>, found: &mut Diagnosis) {
    let in_effect = client
        .get("/v1/config")
        .and_then(|answer| answer.content().cloned());
    match (in_effect, text) {
        (Ok(in_effect), Some(text)) if in_effect != text => found.warning(
            Area::Configuration,
            "the file is not what is in effect: it has been edited since",
            "convey config diff shows what is different; convey reload applies it",
        ),
        (Err(Failure::Told { message, .. }), _) => found.unseen(Area::Configuration, message),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_with_the_places_of_its_mistakes_and_one_that_is_not_there_as_missing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("c.toml");
        let mut found = Diagnosis::default();
        assert!(look(Some(&path), ModeArgs::default(), &mut found).text.is_none());
        assert_eq!(found.count(Level::Error), 1);
        std::fs::write(&path, "[frontends.x]\nlisten = 7\n").expect("write");
        let mut found = Diagnosis::default();
        let looked = look(Some(&path), ModeArgs::default(), &mut found);
        assert!(looked.config.is_none() && looked.text.is_some());
        let place = format!("{}:2:1: ", path.display());
        assert!(
            found
                .findings
                .iter()
                .any(|finding| finding.message.starts_with(&place)),
            "{found:?}"
        );
    }
}
