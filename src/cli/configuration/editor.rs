//! A copy of a text in somebody's editor.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    base::exit,
    cli::outcome::Failure,
    config::MAX_CONFIG_BYTES,
    sys::{config_file, own_file},
};

/// What Debian has for everybody (sensible-utils, alternatives).
const USUAL: &str = "editor";

/// A copy, which is removed unless it is kept.
#[derive(Debug)]
pub struct Copy {
    directory: PathBuf,
    path: PathBuf,
    is_kept: bool,
}

impl Copy {
    /// Makes one in a directory of its own, which nobody else looks into.
    ///
    /// # Errors
    /// Nothing can be written to the directory for temporary files.
    pub fn of(text: &[u8]) -> Result<Self, Failure> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| Failure::new(exit::CANNOT_CREATE, format!("cannot write {path}: {error}"))
        };
        let directory = private_directory().map_err(failed(&std::env::temp_dir()))?;
        let path = directory.join("convey.toml");
        let copy = Self {
            directory,
            path,
            is_kept: false,
        };
        own_file::create(&copy.path, 0o600)
            .and_then(|mut file| file.write_all(text))
            .map_err(failed(&copy.path))?;
        Ok(copy)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets somebody edit it.
    ///
    /// # Errors
    /// There is no editor, or it failed.
    pub fn edit(&self) -> Result<(), Failure> {
        let editor = chosen(|name| std::env::var_os(name));
        // as git and crontab have it: a command line of the shell
        let mut line = editor.clone();
        line.push(" \"$1\"");
        let status = Command::new("/bin/sh")
            .arg("-c")
            .arg(line)
            .arg("convey")
            .arg(&self.path)
            .status()
            .map_err(|error| Failure::new(exit::OS_ERROR, format!("cannot start /bin/sh: {error}")))?;
        match status.success() {
            true => Ok(()),
            false => Err(Failure::new(
                exit::UNAVAILABLE,
                format!(
                    "the editor `{}` failed ({status}); nothing was changed. Choose another with EDITOR",
                    editor.display()
                ),
            )),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// It cannot be read any more.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        config_file::read(&self.path, MAX_CONFIG_BYTES)
            .map_err(|error| Failure::new(exit::NO_INPUT, error.to_string()))
    }

    /// Leaves it where it is.
    pub const fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.is_kept {
            // what an editor has left beside it as well
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn chosen(variable: impl Fn(&str) -> Option<OsString>) -> OsString {
    let set = ["VISUAL", "EDITOR"].into_iter().filter_map(variable);
    let mut set = set.filter(|editor| !editor.is_empty());
    set.next().unwrap_or_else(|| USUAL.into())
}

/// A new directory for this user alone.
fn private_directory() -> io::Result<PathBuf> {
    let template = std::env::temp_dir().join("convey-edit-XXXXXX");
    Ok(nix::unistd::mkdtemp(&template)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_editor_is_the_one_that_is_set_and_else_the_usual_one() {
        let set = |visual: Option<&str>, editor: Option<&str>| {
            let find = |name: &str| if name == "VISUAL" { visual } else { editor };
            chosen(|name| find(name).map(OsString::from))
        };
        assert_eq!(set(Some("code -w"), Some("vi")), "code -w");
        assert_eq!(set(Some(""), Some("vi")), "vi");
        assert_eq!(set(None, None), USUAL);
    }

    #[test]
    fn a_copy_is_for_its_user_alone_and_goes_unless_it_is_kept() {
        use std::os::unix::fs::PermissionsExt as _;
        let mut copy = Copy::of(b"# a").expect("a copy");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(copy.path()), mode(&copy.directory)), (0o600, 0o700));
        assert_eq!(copy.read(), Ok(b"# a".to_vec()));
        copy.keep();
        let (path, directory) = (copy.path.clone(), copy.directory.clone());
        drop(copy);
        assert!(path.exists());
        drop(Copy {
            path,
            directory: directory.clone(),
            is_kept: false,
        });
        assert!(!directory.exists());
    }
}
