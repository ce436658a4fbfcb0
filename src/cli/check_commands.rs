//! What `convey check` says of the programs that the configuration has run.

use std::{collections::BTreeSet, fs, io::ErrorKind, os::unix::fs::PermissionsExt as _, path::Path};

use crate::config::{Command, Config};

/// Mode bits: somebody may execute it.
const EXECUTABLE: u32 = 0o111;

/// Mode bit: everybody may write to it.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Programs that this host has not, or not so that they could be run. The start does not look: each run would fail, and be said
/// then.
pub fn notes(config: &Config) -> Vec<String> {
    let commands = config.commands();
    let programs: BTreeSet<&str> = commands.values().map(Command::program).collect();
    // a name without a place is searched for where commands are, which may be another place for the service
    let placed = programs.into_iter().filter(|program| program.contains('/'));
    placed.filter_map(|program| note(Path::new(program))).collect()
}

fn note(program: &Path) -> Option<String> {
    let name = program.display();
    let metadata = match fs::metadata(program) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some(format!(
                "this host has no program {name}: every run of it would fail"
            ));
        }
        // whoever checks may not see it, and the service may
        Err(_) => return None,
    };
    let mode = metadata.permissions().mode();
    if !metadata.is_file() {
        Some(format!("{name} is no program: every run of it would fail"))
    } else if mode & EXECUTABLE == 0 {
        Some(format!("{name} is not executable: chmod +x {name}"))
    } else if mode & WRITABLE_BY_OTHERS != 0 {
        Some(format!(
            "everybody on this host may write to {name}, which convey runs: chmod o-w {name}"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_could_not_be_run_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("check");
        let said = || note(&program).unwrap_or_default();
        assert!(said().contains("has no program"), "{}", said());
        fs::write(&program, "#!/bin/sh\n").unwrap();
        for (mode, part) in [(0o644, "chmod +x"), (0o777, "chmod o-w"), (0o755, "")] {
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
            assert!(said().contains(part), "{mode:o}: {}", said());
            assert_eq!(said().is_empty(), part.is_empty(), "{mode:o}");
        }
        assert!(note(dir.path()).unwrap().contains("is no program"));
    }
}
