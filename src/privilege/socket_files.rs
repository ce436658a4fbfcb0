//! The unix sockets that frontends listen at: made, kept as they are over a restart, and removed when nobody needs them.

use std::{
    collections::BTreeMap,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::unistd::{Group, getegid};

use super::message::Outcome;
use crate::{
    base::{SocketPath, SocketRights},
    sys::{
        listener::BACKLOG,
        socket_file::{self, SocketFile, SocketFileError},
    },
};

/// The files of those that were made or taken over. Dropping it removes them.
#[derive(Debug, Default)]
pub struct SocketFiles(BTreeMap<SocketPath, SocketFile>);

impl SocketFiles {
    /// Makes the socket at a path. One on which nobody answers is replaced.
    pub fn bind(&mut self, path: SocketPath, rights: &SocketRights) -> (Outcome, Option<OwnedFd>) {
        let unable = |why: String| (Outcome::unable(&format!("cannot listen at {path}: {why}")), None);
        let gid = match group_id(rights) {
            Ok(gid) => gid,
            Err(why) => return unable(why),
        };
        let own = |file: &SocketFile| file.set_rights(rights.mode.bits(), gid);
        match socket_file::listen(path.as_path(), rights.mode.bits(), BACKLOG, own) {
            Ok((socket, file)) => {
                self.0.insert(path, file);
                (Outcome::Bound, Some(socket))
            }
            Err(error) => unable(in_words(&error, rights)),
        }
    }

    /// Goes on with the socket of an earlier process, if its file is still there. Closed is only what is a unix socket.
    pub fn take_over(
        &mut self,
        path: SocketPath,
        socket: ManuallyDrop<OwnedFd>,
        rights: &SocketRights,
    ) -> Outcome {
        let unable = |why: String| Outcome::unable(&format!("cannot go on listening at {path}: {why}"));
        // its file is asked for only of what is such a socket
        if socket_file::path_of(socket.as_fd()).as_deref() != Some(path.as_path()) {
            return unable("it is another socket".to_owned());
        }
        let socket = ManuallyDrop::into_inner(socket);
        let file = match SocketFile::of(socket.as_fd(), path.as_path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return unable("its file is gone".to_owned());
            }
            Err(error) => return unable(format!("find its file: {error}")),
        };
        // one that was there before stands for the same file, or for one that is gone
        if let Some(before) = self.0.insert(path, file) {
            before.leave();
        }
        self.set_rights(path, rights)
    }

    /// Sets who may connect to one of them.
    pub fn set_rights(&self, path: SocketPath, rights: &SocketRights) -> Outcome {
        let unable =
            |why: String| Outcome::unable(&format!("cannot change who may connect to {path}: {why}"));
        let Some(file) = self.0.get(&path) else {
            return unable("it is not listened at".to_owned());
        };
        match group_id(rights) {
            Ok(gid) => match file.set_rights(rights.mode.bits(), gid) {
                Ok(()) => Outcome::Done,
                Err(error) => unable(in_words(&SocketFileError::Owner(error), rights)),
            },
            Err(why) => unable(why),
        }
    }

    /// Removes the file of one that is listened at no longer.
    pub fn release(&mut self, path: SocketPath) {
        self.0.remove(&path);
    }

    /// Removes those that are not among these.
    pub fn keep_only(&mut self, is_needed: impl Fn(SocketPath) -> bool) {
        self.0.retain(|path, _| is_needed(*path));
    }

    /// Leaves all of them to the next process.
    pub fn leave(self) {
        self.0.into_values().for_each(SocketFile::leave);
    }
}

/// The ids of groups, sorted, without those that there are not.
pub fn group_ids<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let found = names.filter_map(|name| Group::from_name(name).ok().flatten());
    let mut ids: Vec<u32> = found.map(|group| group.gid.as_raw()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The group of the file.
fn group_id(rights: &SocketRights) -> Result<u32, String> {
    let Some(name) = &rights.group else {
        return Ok(getegid().as_raw());
    };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("socket_group: there is no group `{name}`")),
        Err(errno) => Err(format!("socket_group: look up group `{name}`: {errno}")),
    }
}

/// What is wrong, and what to do.
fn in_words(error: &SocketFileError, rights: &SocketRights) -> String {
    let help = match error {
        SocketFileError::NotASocket => "remove it, or write another path",
        SocketFileError::InUse => "stop that, or write another path",
        SocketFileError::Listen(error) | SocketFileError::RemoveStale(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {
                return "there is no such directory; make it, so that the user convey runs as may write to it".to_owned();
            }
            Some(libc::EACCES | libc::EPERM) => "the user that convey runs as may not write to its directory",
            Some(libc::EROFS) => {
                "the unit convey.service may write to /run/convey only, unless ReadWritePaths= names the directory"
            }
            _ => return error.to_string(),
        },
        SocketFileError::Owner(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let group = rights.group.as_deref().unwrap_or("of its own");
            return format!(
                "the user that convey runs as is not in the group {group} of socket_group; add it (`adduser convey GROUP`) and restart convey"
            );
        }
        SocketFileError::Inspect(error) if error.raw_os_error() == Some(libc::EACCES) => {
            return "it is another user's, and whether somebody listens on it cannot be seen; remove it, or write another path".to_owned();
        }
        SocketFileError::Path(_) | SocketFileError::Inspect(_) | SocketFileError::Owner(_) => {
            return error.to_string();
        }
    };
    format!("{error}: {help}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::net::UnixStream};

    fn said(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Unable { why } => why.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn files_are_there_until_they_are_released_or_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| SocketPath::new(directory.path().join(name).to_str().unwrap()).unwrap();
        let (a, b, c) = (path("a"), path("b"), path("c"));
        let mut files = SocketFiles::default();
        for path in [a, b, c] {
            let (outcome, socket) = files.bind(path, &SocketRights::default());
            assert_eq!(outcome, Outcome::Bound);
            assert!(socket.is_some() && UnixStream::connect(path.as_path()).is_ok());
        }
        let there = || [a, b, c].map(|path| path.as_path().exists());
        files.release(a);
        assert_eq!(there(), [false, true, true]);
        files.keep_only(|path| path == c);
        assert_eq!(there(), [false, false, true]);
        files.leave();
        assert_eq!(there(), [false, false, true]);
    }

    #[test]
    fn a_socket_that_is_handed_back_is_still_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = SocketPath::new(directory.path().join("a").to_str().unwrap()).unwrap();
        let (mut files, rights) = (SocketFiles::default(), SocketRights::default());
        let socket = files.bind(path, &rights).1.unwrap();
        match files.take_over(path, ManuallyDrop::new(socket.try_clone().unwrap()), &rights) {
            Outcome::Done => {}
            // it takes CAP_NET_ADMIN to find the file
            other => assert!(said(&other).contains("find its file"), "{other:?}"),
        }
        assert!(UnixStream::connect(path.as_path()).is_ok());
        drop(files);
        assert!(!path.as_path().exists());
    }

    #[test]
    fn what_cannot_be_made_says_why_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| SocketPath::new(directory.path().join(name).to_str().unwrap()).unwrap();
        let mut files = SocketFiles::default();
        let none = SocketRights {
            group: Some("no-such-group".to_owned()),
            ..SocketRights::default()
        };
        let mut fails = |path, rights: &SocketRights, words: &str| {
            let (outcome, socket) = files.bind(path, rights);
            assert!(socket.is_none() && said(&outcome).contains(words), "{outcome:?}");
        };
        fails(path("a"), &none, "there is no group `no-such-group`");
        fails(
            path("missing/a"),
            &SocketRights::default(),
            "there is no such directory",
        );
        fs::write(path("file").as_path(), "precious").unwrap();
        fails(
            path("file"),
            &SocketRights::default(),
            "it exists and is not a socket: remove it",
        );
        let (_living, _file) = socket_file::listen(path("b").as_path(), 0o600, 9, |_| Ok(())).unwrap();
        fails(
            path("b"),
            &SocketRights::default(),
            "another process listens on it: stop that",
        );
        assert_eq!(fs::read(path("file").as_path()).unwrap(), b"precious");
        assert!(
            said(&files.set_rights(path("b"), &SocketRights::default())).contains("it is not listened at")
        );
    }
}
