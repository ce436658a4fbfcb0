//! Where lines about connections go that only the broker may open: files that are appended to, and the syslog socket of
//! this host.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::Path,
};

use super::{Policy, message::Outcome};
use crate::{base::SocketPath, sys::own_file};

/// Mode of a file that is made: others than its owner and group are not told who connects.
const MODE: u32 = 0o640;

/// Opens a file that the configuration has lines appended to.
pub fn file(policy: &Policy, path: &Path) -> (Outcome, Option<OwnedFd>) {
    match policy.has_log(|places| places.files.contains(path)) {
        true => open_file(path),
        false => {
            let why = format!(
                "no connection_log of the configuration has the file {}",
                path.display()
            );
            (Outcome::refused(&why), None)
        }
    }
}

/// Connects to a syslog socket that the configuration has lines sent to.
pub fn socket(policy: &Policy, path: SocketPath) -> (Outcome, Option<OwnedFd>) {
    match policy.has_log(|places| places.sockets.contains(&path)) {
        true => connect(path),
        false => {
            let why = format!("no connection_log of the configuration is sent to {path}");
            (Outcome::refused(&why), None)
        }
    }
}

/// Opens a file to append to it, made if it is missing. What is written by the descriptor goes to its end.
fn open_file(path: &Path) -> (Outcome, Option<OwnedFd>) {
    match own_file::extend(path, MODE) {
        Ok(file) => (Outcome::LogFile, Some(file.into())),
        Err(error) => {
            let why = format!("cannot write {}: {}", path.display(), in_words(&error));
            (Outcome::unable(&why), None)
        }
    }
}

/// Connects to a syslog socket of datagrams. Sending does not block.
fn connect(path: SocketPath) -> (Outcome, Option<OwnedFd>) {
    let connected = UnixDatagram::unbound().and_then(|socket| {
        socket.connect(path.as_path())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    match connected {
        Ok(socket) => (Outcome::Connected, Some(socket.into())),
        Err(error) => {
            let why = match error.raw_os_error() {
                Some(libc::EPROTOTYPE) => "it is no socket of datagrams".to_owned(),
                Some(libc::ENOENT) => "there is no such socket".to_owned(),
                Some(libc::ECONNREFUSED) => "nobody listens on it".to_owned(),
                _ => error.to_string(),
            };
            (Outcome::unable(&format!("connect to {path}: {why}")), None)
        }
    }
}

/// What is wrong, and what to do.
fn in_words(error: &io::Error) -> String {
    let help = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            return "there is no such directory; make it, so that the user convey runs as may write to it"
                .to_owned();
        }
        Some(libc::EACCES | libc::EPERM) => {
            "the user that convey runs as may not write it or its directory; the package has /var/log/convey for that"
        }
        Some(libc::EROFS) => {
            "the unit convey.service may write logs to /var/log/convey only, unless ReadWritePaths= names the directory"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {help}")
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write as _,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;
    use crate::config::{self, Options, Source};

    fn why(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Unable { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_made_for_owner_and_group_and_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("connections.log");
        for line in ["one\n", "two\n"] {
            let (outcome, file) = open_file(&path);
            assert_eq!(outcome, Outcome::LogFile);
            File::from(file.unwrap()).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        // what an administrator has made stays as it is
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(open_file(&path).0, Outcome::LogFile);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_not_followed_and_a_missing_directory_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "precious").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        symlink(at("missing"), at("dangling")).unwrap();
        for name in ["link", "dangling"] {
            let (outcome, file) = open_file(&at(name));
            assert!(
                file.is_none() && why(&outcome).contains("remove it"),
                "{outcome:?}"
            );
        }
        assert!(!at("missing").exists());
        let (outcome, _) = open_file(&at("no/where.log"));
        assert!(why(&outcome).contains("no such directory"), "{outcome:?}");
    }

    #[test]
    fn only_what_the_configuration_names_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let site = |log: &str| {
            let text = format!(
                "[frontends.f]\nlisten_addr = \"127.0.0.1:80\"\nbackend = \"b\"\nconnection_log = {{ {log} }}\n\
                 [backends.b]\nservers.s = {{ addr = \"127.0.0.1:81\" }}\n"
            );
            let source = Source {
                name: "convey.toml".into(),
                bytes: text.into(),
            };
            config::load(&source, Options::default()).unwrap().config
        };
        let mut policy = Policy::new(site(&format!("file = {path:?}")));
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused { .. });
        assert_eq!(file(&policy, &path).0, Outcome::LogFile);
        assert!(refused(&file(&policy, &directory.path().join("b.log")).0));
        let log = SocketPath::new("/dev/log").unwrap();
        assert!(refused(&socket(&policy, log).0));
        // a reload that fails goes back to what was
        policy.adopt(site("syslog = \"unix:/dev/log\""));
        assert_eq!(file(&policy, &path).0, Outcome::LogFile);
        assert!(!refused(&socket(&policy, log).0));
        policy.in_effect_alone();
        assert!(refused(&file(&policy, &path).0));
    }

    #[test]
    fn the_syslog_socket_of_a_host_takes_datagrams() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let named = SocketPath::new(path.to_str().unwrap()).unwrap();
        assert!(why(&connect(named).0).contains("no such socket"));
        let log = UnixDatagram::bind(&path).unwrap();
        let (outcome, socket) = connect(named);
        assert_eq!(outcome, Outcome::Connected);
        UnixDatagram::from(socket.unwrap()).send(b"<30>x").unwrap();
        let mut said = [0; 8];
        assert_eq!(log.recv(&mut said).unwrap(), 5);
        drop(log);
        assert!(why(&connect(named).0).contains("nobody listens"));
    }
}
