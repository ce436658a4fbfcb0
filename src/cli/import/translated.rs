//! Reads, translates, prints and tells what differs.

use std::{
    fmt::Write as _,
    fs::File,
    io,
    io::{Read, Write as _},
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use super::files::Beside;
use crate::{
    base::exit,
    cli::{
        args::{ImportArgs, ImportKind},
        outcome::{CommandResult, Failure},
        progress::{Progress, STEP},
        text::{colour_wanted, harmless},
    },
    config::{self, Severity, Source},
    import::{self, Counts, Files, Imported, InputFile, Kind, MAX_INPUT_BYTES, NoFiles, Unreadable},
    sys::config_file,
};

impl From<ImportKind> for Kind {
    fn from(kind: ImportKind) -> Self {
        match kind {
            ImportKind::HaProxy => Self::HaProxy,
            ImportKind::Nginx => Self::Nginx,
            ImportKind::Gobetween => Self::Gobetween,
            ImportKind::Awe4lb => Self::Awe4lb,
            ImportKind::Ipvs => Self::Ipvs,
            ImportKind::Keepalived => Self::Keepalived,
        }
    }
}

/// Translates a file and prints what came of it; notes and findings go to stderr.
pub fn run(args: &ImportArgs) -> CommandResult {
    let (file, mut files) = read(&args.file)?;
    let imported = translate(args.kind.into(), &file, files.as_mut())
        .map_err(|error| Failure::new(exit::DATA, harmless(&error.to_string())))?;
    let mut out = io::stdout().lock();
    out.write_all(imported.text.as_bytes())?;
    out.flush()?;
    let mut stderr = io::stderr().lock();
    stderr.write_all(harmless(&report(&file.name, &imported)).as_bytes())?;
    let source = Source {
        name: import::TRANSLATION.to_owned(),
        bytes: imported.text.into_bytes(),
    };
    let colour = colour_wanted(&stderr);
    stderr.write_all(config::render(&imported.findings, &source, colour).as_bytes())?;
    let has_errors = imported
        .findings
        .iter()
        .any(|found| found.severity == Severity::Error);
    Ok(match has_errors {
        true => exit::CONFIG,
        false if args.strict && imported.counts.without_equal > 0 => exit::DATA,
        false => exit::OK,
    })
}

/// As [`import::translate`], saying that it goes on if that takes its time.
fn translate(kind: Kind, file: &InputFile, files: &mut (dyn Files + Send)) -> Result<Imported, Unreadable> {
    // nothing is sent: it closes when the work is done
    let (open, closed) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let work = scope.spawn(move || {
            let _open = open;
            import::translate(kind, file, files)
        });
        let mut progress = Progress::start();
        while closed.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
            progress.tell(|| format!("translating {}", file.name));
        }
        // a panic of that thread is one of this
        work.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The input, and what it may include.
fn read(path: &Path) -> Result<(InputFile, Box<dyn Files + Send>), Failure> {
    let is_stdin = path == Path::new("-") || path == Path::new("/dev/stdin");
    let is_pipe = path.parent() == Some(Path::new("/dev/fd"));
    if !is_stdin && !is_pipe {
        let bytes = config_file::read(path, MAX_INPUT_BYTES)
            .map_err(|error| Failure::new(exit::NO_INPUT, error.of_file_named_in("the command line")))?;
        let files = Beside::new(path, bytes.len());
        return Ok((
            InputFile::new(&path.display().to_string(), &bytes),
            Box::new(files),
        ));
    }
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let bytes = match is_stdin {
        true => read_all(io::stdin().lock()),
        false => File::open(path).and_then(read_all),
    };
    let bytes =
        bytes.map_err(|error| Failure::new(exit::NO_INPUT, format!("cannot read {name}: {error}")))?;
    if bytes.len() > MAX_INPUT_BYTES {
        let message =
            format!("cannot read {name}: it is larger than {MAX_INPUT_BYTES} bytes, the most that is read");
        return Err(Failure::new(exit::NO_INPUT, message));
    }
    Ok((InputFile::new(&name, &bytes), Box::new(NoFiles)))
}

/// One byte more than there may be, so that too many are noticed.
fn read_all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_INPUT_BYTES).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Each note, and how much was translated.
fn report(name: &str, imported: &Imported) -> String {
    let mut text = String::new();
    for note in &imported.notes {
        let _infallible = writeln!(text, "{note}");
    }
    let Counts {
        directives,
        translated,
        differing,
        without_equal,
    } = imported.counts;
    let _infallible = writeln!(
        text,
        "{name}: {directives} directives: {translated} translated, {differing} translated with a difference, {without_equal} \
         without an equal"
    );
    text
}
