//! The path of a unix socket, as the kernel takes it.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// What stands before the path.
const SCHEME: &str = "unix:";

/// Longest path, in bytes: `sun_path` of unix(7), less its end.
const LONGEST: usize = 107;

/// An absolute path in the one spelling that it has: no `//`, `.` or `..` in it, and no `/` at its end. Written
/// `unix:/run/app.sock`.
///
/// It holds its bytes itself, so that an address is copied whatever its kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SocketPath {
    /// Zeros from the end of the path on.
    bytes: [u8; LONGEST],
    length: u8,
}

/// Why a text is no path of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASocketPath {
    /// Nothing says that it is one.
    #[error("no `unix:` before it")]
    NoScheme,
    /// It does not begin at the root.
    #[error("its path is not absolute")]
    Relative,
    /// There are more than 107 bytes.
    #[error("its path has more than {LONGEST} bytes")]
    TooLong,
    /// There is `//`, `.` or `..` in it, or `/` at its end.
    #[error("its path has another spelling")]
    NotPlain,
    /// There is a control character in it.
    #[error("its path has a control character")]
    Control,
}

impl SocketPath {
    /// The socket at a path, which `unix:` does not stand before.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub fn new(path: &str) -> Result<Self, NotASocketPath> {
        let Some(below) = path.strip_prefix('/') else {
            return Err(NotASocketPath::Relative);
        };
        if path.chars().any(char::is_control) {
            return Err(NotASocketPath::Control);
        }
        if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(NotASocketPath::NotPlain);
        }
        let mut bytes = [0; LONGEST];
        let place = bytes.get_mut(..path.len()).ok_or(NotASocketPath::TooLong)?;
        place.copy_from_slice(path.as_bytes());
        let length = u8::try_from(path.len()).map_err(|_| NotASocketPath::TooLong)?;
        Ok(Self { bytes, length })
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let path = self.bytes.get(..self.length.into()).unwrap_or_default();
        // made of a text
        str::from_utf8(path).unwrap_or_default()
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_str())
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{SCHEME}{}", self.as_str()))
    }
}

impl fmt::Debug for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SocketPath {
    type Err = NotASocketPath;

    fn from_str(text: &str) -> Result<Self, NotASocketPath> {
        Self::new(text.strip_prefix(SCHEME).ok_or(NotASocketPath::NoScheme)?)
    }
}

impl From<SocketPath> for String {
    fn from(path: SocketPath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for SocketPath {
    type Error = NotASocketPath;

    fn try_from(text: String) -> Result<Self, NotASocketPath> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_written() {
        let text = "unix:/run/php/app one.sock";
        let path: SocketPath = text.parse().unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(path.as_path(), Path::new("/run/php/app one.sock"));
        let longest = format!("/{}", "x".repeat(106));
        assert_eq!(SocketPath::new(&longest).unwrap().as_str(), longest);
    }

    #[test]
    fn a_path_has_one_spelling_and_room_in_the_kernels_address() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, why) in [
            ("/run/app.sock", NotASocketPath::NoScheme),
            ("unix:app.sock", NotASocketPath::Relative),
            ("unix:", NotASocketPath::Relative),
            ("unix:@app", NotASocketPath::Relative),
            ("unix:/", NotASocketPath::NotPlain),
            ("unix:/run/", NotASocketPath::NotPlain),
            ("unix://run/app.sock", NotASocketPath::NotPlain),
            ("unix:/run/../app.sock", NotASocketPath::NotPlain),
            ("unix:/run/app\0.sock", NotASocketPath::Control),
            (long.as_str(), NotASocketPath::TooLong),
        ] {
            assert_eq!(text.parse::<SocketPath>(), Err(why), "{text}");
        }
    }
}
