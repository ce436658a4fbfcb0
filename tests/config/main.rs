//! Configuration files, good and bad: every file here and in `configs/` is one test.
//!
//! - `configs/*.toml` and `good/*.toml` load; what is warned about is in `NAME.warnings` beside a good file, or in
//!   `good/configs/NAME.warnings` for a shipped one; no such file, no warning.
//! - `bad/*` do not load; `NAME.stderr` has the very text that the operator sees.
//!
//! `CONVEY_BLESS=1` rewrites the expected texts; look at what changed before you commit it.

mod generated;
mod growth;
mod keys;
mod meaning;
mod packets;
mod schema;
mod shown;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use convey::config::{self, Loaded, Options, Severity, Source};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> io::Result<()> {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    for path in files("configs")? {
        trials.push(trial("shipped", &path, loads));
    }
    for path in files("tests/config/good")? {
        trials.push(trial("good", &path, loads));
    }
    for path in files("tests/config/bad")? {
        trials.push(trial("bad", &path, is_refused));
    }
    trials.extend(keys::trials());
    trials.extend(meaning::trials());
    trials.extend(packets::trials());
    trials.extend(schema::trials());
    trials.extend(generated::trials());
    trials.extend(growth::trials());
    libtest_mimic::run(&args, trials).exit()
}

/// The repository's top directory.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a directory that are configurations, sorted.
fn files(dir: &str) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(top().join(dir))?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn trial(kind: &str, path: &Path, test: fn(&Path) -> Result<(), Failed>) -> Trial {
    let path = path.to_owned();
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().replace('-', "_"))
        .unwrap_or_default();
    Trial::test(name, move || test(&path)).with_kind(kind)
}

/// The file as the daemon reads it, called by its name alone so that messages do not depend on the directory.
fn source(path: &Path) -> io::Result<Source> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Source {
        name,
        bytes: fs::read(path)?,
    })
}

/// A text as a configuration file called `convey.toml`.
fn text(text: &str) -> Source {
    Source {
        name: "convey.toml".into(),
        bytes: text.into(),
    }
}

/// Loads what must load.
fn load(source: &Source) -> Result<Loaded, Failed> {
    config::load(source, Options::default()).map_err(|found| config::render(&found, source, false).into())
}

fn loads(path: &Path) -> Result<(), Failed> {
    let source = source(path)?;
    let loaded = load(&source)?;
    let dir = if path.starts_with(top().join("configs")) {
        top().join("tests/config/good/configs")
    } else {
        top().join("tests/config/good")
    };
    let name = path.with_extension("warnings");
    let expected = dir.join(name.file_name().unwrap_or_default());
    compare(&config::render(&loaded.warnings, &source, false), &expected)?;
    prints_itself(&loaded)
}

/// The canonical text of a configuration is that configuration, and its own canonical text.
fn prints_itself(loaded: &Loaded) -> Result<(), Failed> {
    let printed = config::print(&loaded.config);
    let again = load(&text(&printed))?;
    if again.config != loaded.config {
        return Err(format!("the printed text means something else:\n{printed}").into());
    }
    if config::print(&again.config) != printed {
        return Err(format!("the printed text is not canonical:\n{printed}").into());
    }
    Ok(())
}

fn is_refused(path: &Path) -> Result<(), Failed> {
    let source = source(path)?;
    match config::load(&source, Options::default()) {
        Ok(_) => Err("it loads".into()),
        Err(found) => {
            if found.iter().all(|finding| finding.severity == Severity::Warning) {
                return Err("refused without an error".into());
            }
            compare(
                &config::render(&found, &source, false),
                &path.with_extension("stderr"),
            )
        }
    }
}

/// Compares with the text of a file; an absent file is an empty text.
fn compare(actual: &str, expected: &Path) -> Result<(), Failed> {
    if std::env::var_os("CONVEY_BLESS").is_some() {
        if actual.is_empty() {
            match fs::remove_file(expected) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => return Ok(()),
            }
        }
        return Ok(fs::write(expected, actual)?);
    }
    let wanted = match fs::read_to_string(expected) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    if actual == wanted {
        return Ok(());
    }
    Err(format!(
        "differs from {}\n--- expected\n{wanted}--- actual\n{actual}",
        expected.display()
    )
    .into())
}
