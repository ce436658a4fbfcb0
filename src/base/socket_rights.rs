//! Who may connect to a unix socket that is listened on.

use std::fmt;

/// The mode and the group of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketRights {
    /// Its permissions: to connect takes the right to write.
    pub mode: SocketMode,
    /// The name of its group; `None`: that of the user that convey runs as.
    pub group: Option<String>,
}

/// Permissions of a socket's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(u32);

impl SocketMode {
    /// Owner and group may connect.
    pub const DEFAULT: Self = Self(0o660);

    /// Reads digits as chmod(1) does: three octal ones, with a zero before them or without. `None` if they are none, or do not let
    /// the owner connect.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix('0')
            .filter(|rest| rest.len() == 3)
            .unwrap_or(text);
        let is_octal = digits.len() == 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal)?;
        (mode & 0o200 != 0).then_some(Self(mode))
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketRights {
    fn default() -> Self {
        Self {
            mode: SocketMode::DEFAULT,
            group: None,
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_three_octal_digits_that_let_the_owner_connect() {
        for (text, mode) in [
            ("0660", "0660"),
            ("660", "0660"),
            ("0666", "0666"),
            ("222", "0222"),
        ] {
            assert_eq!(
                SocketMode::parse(text).map(|mode| mode.to_string()),
                Some(mode.to_owned())
            );
        }
        for text in [
            "",
            "0",
            "66",
            "0o660",
            "0680",
            "1660",
            "00660",
            "0066",
            "440",
            "rw-rw----",
            "+60",
        ] {
            assert_eq!(SocketMode::parse(text), None, "{text}");
        }
    }
}
