//! The programs that show and change the kernel's tables: where they are, and what they say.

use std::{path::Path, process::Output};

use super::FirewallError;

/// A program and where it is when PATH lacks the directories of the administrator.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its places outside PATH.
    pub places: [&'static str; 2],
}

macro_rules! program {
    ($name:literal) => {
        $crate::firewall::program::Program {
            name: $name,
            places: [concat!("/usr/sbin/", $name), concat!("/sbin/", $name)],
        }
    };
}
pub(super) use program;

impl Program {
    /// What to start: the name if PATH finds it, else the first place that has it.
    ///
    /// # Errors
    /// [`FirewallError::Missing`].
    pub fn find(self) -> Result<&'static str, FirewallError> {
        let in_path = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|directory| is_program(&directory.join(self.name)))
        });
        if in_path {
            return Ok(self.name);
        }
        let place = self.places.into_iter().find(|place| is_program(Path::new(place)));
        place.ok_or(FirewallError::Missing {
            program: self.name,
            package: "iptables",
        })
    }
}

/// Standard output of a program that did well, else what it complained about.
pub fn text_of(output: &Output) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(match complaint.trim() {
        "" => output.status.to_string(),
        text => text.to_owned(),
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
