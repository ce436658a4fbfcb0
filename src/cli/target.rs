//! Which configuration file, and which socket.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{args::ModeArgs, outcome::Failure};
use crate::{
    base::exit,
    config::{self, Loaded, MAX_CONFIG_BYTES, Source},
    firewall,
    sys::{
        config_file::{self, ReadError},
        environment,
    },
};

/// 0.3.5's default, in the current directory.
const LOCAL_CONFIG: &str = "config.toml";

/// The packaged configuration.
const SYSTEM_CONFIG: &str = "/etc/convey/convey.toml";

/// Where the control socket is when no configuration says otherwise.
const DEFAULT_SOCKET: &str = "/run/convey/admin.sock";

/// The configuration file: the one given, else `config.toml` if it exists, else the packaged one.
pub fn config_path(given: Option<&Path>) -> PathBuf {
    match given {
        Some(path) => path.into(),
        None if Path::new(LOCAL_CONFIG).exists() => LOCAL_CONFIG.into(),
        None => SYSTEM_CONFIG.into(),
    }
}

/// The configuration file that is to run.
///
/// # Errors
/// None was named, and none is where it would be looked for; or standard input, which cannot be read again.
pub fn config_to_run(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = config_path(given);
    if given.is_none() && matches!(path.try_exists(), Ok(false)) {
        return Err(Failure::new(
            exit::NO_INPUT,
            format!(
                "no configuration: neither {LOCAL_CONFIG} here nor {SYSTEM_CONFIG} exists. What to do next:\n  \
                 convey init      writes one to start from, as {LOCAL_CONFIG}\n  \
                 convey -c FILE   runs with another one\n  \
                 convey help      lists the commands"
            ),
        ));
    }
    if is_stdin(&path) {
        return Err(Failure::new(
            exit::USAGE,
            "`-` is for `convey check`: a running convey reads its configuration again when it changes, so name a file",
        ));
    }
    Ok(path)
}

/// The text of a configuration: of the one given, else of the default one.
///
/// # Errors
/// It cannot be read.
pub fn read_config(given: Option<&Path>) -> Result<Source, Failure> {
    let path = config_path(given);
    let (name, bytes) = if is_stdin(&path) {
        ("standard input".to_owned(), read_all(io::stdin().lock()))
    } else if is_descriptor(&path) {
        // such as bash's `<(…)`: a pipe that whoever calls us has opened for us
        (path.display().to_string(), File::open(&path).and_then(read_all))
    } else {
        let bytes = config_file::read(&path, MAX_CONFIG_BYTES).map_err(|error| unreadable(&error))?;
        (path.display().to_string(), Ok(bytes))
    };
    let bytes =
        bytes.map_err(|error| Failure::new(exit::NO_INPUT, format!("cannot read {name}: {error}")))?;
    Ok(Source { name, bytes })
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether a path names a descriptor of this process.
fn is_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.parent() == Some(Path::new("/dev/fd"))
}

/// One byte more than there may be, so that too many are noticed.
fn read_all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_CONFIG_BYTES).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The control socket: the one given, else the configuration's, else the default.
///
/// The configuration is read leniently: `convey reload` must reach the daemon to learn what is wrong with it.
///
/// # Errors
/// The configuration that was named cannot be read, or turns the socket off.
pub fn socket_path(given: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path.into());
    }
    let path = config_path(config);
    let bytes = match config_file::read(&path, MAX_CONFIG_BYTES) {
        Ok(bytes) => bytes,
        // a user who may use the socket need not be able to read the configuration
        Err(_) if config.is_none() => return Ok(default_socket()),
        Err(error) => return Err(unreadable(&error)),
    };
    match configured_socket(&bytes) {
        None => Ok(default_socket()),
        Some(socket) if socket.is_empty() => Err(Failure::new(
            exit::UNAVAILABLE,
            format!(
                "{} turns the control socket off ([admin] socket = \"\"): a convey that runs with it cannot be reached; \
                 for another one give --socket",
                path.display()
            ),
        )),
        Some(socket) => Ok(socket.into()),
    }
}

/// The socket of a configuration that names none: the user's own if somebody answers there or nobody could at the
/// system's, which a member of its group may use too.
fn default_socket() -> PathBuf {
    let system = Path::new(DEFAULT_SOCKET);
    let own = environment::user_socket().filter(|own| UnixStream::connect(own).is_ok() || !system.exists());
    own.unwrap_or(system).into()
}

/// A good configuration, whatever host it is for.
///
/// # Errors
/// It cannot be read, or has errors.
pub fn load(given: Option<&Path>, mode: ModeArgs) -> Result<Loaded, Failure> {
    let source = read_config(given)?;
    config::load(&source, mode.options()).map_err(|_| has_errors(&source))
}

/// A good configuration as the daemon would read it on this host, with its NAT ports.
///
/// # Errors
/// As [`load`].
pub fn load_for_host(given: Option<&Path>, mode: ModeArgs) -> Result<Loaded, Failure> {
    let source = read_config(given)?;
    let loaded = firewall::load_for_host(&source, mode.options(), None);
    loaded.map(|(loaded, _)| loaded).map_err(|_| has_errors(&source))
}

fn has_errors(source: &Source) -> Failure {
    let message = format!("{0} has errors: see `convey check {0}`", source.name);
    Failure::new(exit::CONFIG, message)
}

/// The failure of reading a configuration.
pub fn unreadable(error: &ReadError) -> Failure {
    let exit = match error {
        ReadError::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            exit::NO_PERMISSION
        }
        _ => exit::NO_INPUT,
    };
    Failure::new(exit, error.to_string())
}

/// `[admin] socket` as far as the file can be understood.
fn configured_socket(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (table, _errors) = DeTable::parse_recoverable(&text);
    let admin = table.get_ref().get("admin")?.get_ref();
    match admin.get("socket")?.get_ref() {
        DeValue::String(socket) => Some(socket.clone().into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_in_a_configuration_with_errors_elsewhere() {
        for text in [
            "[admin]\nsocket = '/x/y'\n",
            "[admin]\nsocket = '/x/y'\n[frontends.web]\nlisten_adr = 3\n",
            "[admin]\nsocket = '/x/y'\n[frontends.web\nlisten_addr = \n",
        ] {
            assert_eq!(
                configured_socket(text.as_bytes()).as_deref(),
                Some("/x/y"),
                "{text}"
            );
        }
        for text in [
            "",
            "[admin]\n",
            "admin = 3",
            "[admin]\nsocket = 3\n",
            "\u{0}\u{1}",
        ] {
            assert_eq!(configured_socket(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_socket_given_wins_over_the_configurations_and_that_over_the_default() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("c.toml");
        std::fs::write(&config, "[admin]\nsocket = '/configured'\n").expect("write");
        assert_eq!(
            socket_path(Some(Path::new("/given")), Some(&config)),
            Ok("/given".into())
        );
        assert_eq!(socket_path(None, Some(&config)), Ok("/configured".into()));
        std::fs::write(&config, "").expect("write");
        assert_eq!(socket_path(None, Some(&config)), Ok(default_socket()));
    }

    #[test]
    fn a_configuration_that_was_named_must_be_readable_and_have_a_socket() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("c.toml");
        assert!(matches!(
            socket_path(None, Some(&config)),
            Err(Failure::Told {
                exit: exit::NO_INPUT,
                ..
            })
        ));
        std::fs::write(&config, "[admin]\nsocket = ''\n").expect("write");
        assert!(matches!(
            socket_path(None, Some(&config)),
            Err(Failure::Told {
                exit: exit::UNAVAILABLE,
                ..
            })
        ));
    }
}
