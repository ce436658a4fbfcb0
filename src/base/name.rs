//! Names that operators give to frontends, backends, servers and lists of networks.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, de::Error as _};

/// Longest name in bytes: what still fits a table column, a log line and a metrics label.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a string is not a usable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no character at all.
    #[error("a name must not be empty")]
    Empty,
    /// The name has more than [`MAX_NAME_BYTES`] bytes.
    #[error("a name must not be longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// The name contains a control character, which would break log lines and tables.
    #[error("a name must not contain control characters")]
    Control,
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// The name is empty, too long, or has control characters.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check(name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type!(
    /// A frontend's name: the key of `[frontends.NAME]`.
    FrontendName
);
name_type!(
    /// A backend's name: the key of `[backends.NAME]`.
    BackendName
);
name_type!(
    /// A server's name: the key of `[backends.BACKEND.servers.NAME]`.
    ServerName
);

name_type!(
    /// The name of a list of networks: a key of `[network_lists]`.
    NetworkListName
);

/// A server's identity across reloads: its backend and its name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    /// The backend that the server belongs to.
    pub backend: BackendName,
    /// The server's name in that backend.
    pub server: ServerName,
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_printable_text() {
        assert_eq!(
            FrontendName::new("tcp_3000").map(|n| n.to_string()),
            Ok("tcp_3000".into())
        );
        assert_eq!(
            FrontendName::new("größe 1").map(|n| n.to_string()),
            Ok("größe 1".into())
        );
    }

    #[test]
    fn a_name_that_would_break_a_log_line_is_refused() {
        assert_eq!(BackendName::new(""), Err(NameError::Empty));
        assert_eq!(BackendName::new("a\nb"), Err(NameError::Control));
        assert_eq!(ServerName::new(&"x".repeat(256)), Err(NameError::TooLong));
    }
}
