//! `convey support`: one archive with what somebody needs to help, without secrets.

mod archive;
mod collect;
mod scrub;

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    args::{ModeArgs, SupportArgs},
    outcome::{CommandResult, Failure},
    progress::Progress,
    text::harmless,
};
use crate::base::exit;
use archive::Archive;
use collect::Collected;

/// Writes the archive.
pub fn run(args: &SupportArgs, config: Option<&Path>, mode: ModeArgs) -> CommandResult {
    let name = format!("convey-support-{}-{}", host_name(), stamp(SystemTime::now()));
    let to_stdout = args.file.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::new(
            exit::USAGE,
            "the archive is not for a terminal: name a file, or redirect standard output",
        ));
    }
    let path = args
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    // before anything is collected: a place where nothing can be written is soon said
    let writer: Box<dyn io::Write> = if to_stdout {
        Box::new(io::stdout().lock())
    } else {
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        Box::new(opened.map_err(|error| cannot_create(&path, &error))?)
    };
    let mut progress = Progress::start();
    let collected = collect::everything(
        args.target.socket.as_deref(),
        config,
        args.mode.or(mode),
        &mut progress,
    );
    let written = write(writer, &name, &collected);
    progress.end();
    written.map_err(|error| Failure::new(exit::IO, format!("cannot write {}: {error}", path.display())))?;
    for what in &collected.missing {
        writeln!(io::stderr(), "not in it: {}", harmless(what))?;
    }
    if !to_stdout {
        writeln!(
            io::stdout(),
            "wrote {}: keys, tokens and passwords are removed; names, addresses and logs are not: look at it before you send it",
            path.display()
        )?;
    }
    Ok(exit::OK)
}

fn write(writer: impl io::Write, name: &str, collected: &Collected) -> io::Result<()> {
    let mut archive = Archive::new(writer, name, SystemTime::now())?;
    for (path, content) in &collected.files {
        archive.file(path, content)?;
    }
    archive.finish()
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    let message = match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} exists: name another file", path.display()),
        _ => format!("cannot create {}: {error}", path.display()),
    };
    Failure::new(exit::CANNOT_CREATE, message)
}

/// The host's name as far as it is good for a file name.
fn host_name() -> String {
    let name = nix::sys::utsname::uname().map(|names| names.nodename().to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let plain: String = name.chars().filter(is_plain).take(64).collect();
    if plain.is_empty() {
        "host".to_owned()
    } else {
        plain
    }
}

/// A moment of UTC as `20261130T100000Z`.
fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let text = at.map_or_else(String::new, |at| at.to_string());
    text.replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_is_told_in_letters_that_file_names_may_have() {
        assert_eq!(
            stamp(UNIX_EPOCH + Duration::from_secs(1_796_032_800)),
            "20261130T100000Z"
        );
        assert!(!host_name().is_empty());
    }
}
