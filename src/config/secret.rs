//! Secrets: the configuration says where they are, and never has them itself.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// `file:PATH`: in a file, without the white space around it. The broker reads it.
    File(PathBuf),
    /// `${NAME}`: in the environment that Convey is started with.
    Variable(String),
}

/// Why a text does not say where a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    /// It may be the secret itself.
    #[error("a secret does not stand in the configuration, which people copy and commands print")]
    Itself,
    /// The path is not absolute.
    #[error("the path of the file is not absolute")]
    Relative,
    /// The name of the variable.
    #[error("the name of a variable has letters, digits and underscores")]
    Name,
}

impl Secret {
    /// The file that has it.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Variable(_) => None,
        }
    }
}

impl FromStr for Secret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<Self, NotASecret> {
        if let Some(path) = text.strip_prefix("file:") {
            return match path.starts_with('/') && !path.contains('\0') {
                true => Ok(Self::File(path.into())),
                false => Err(NotASecret::Relative),
            };
        }
        let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let name = name.ok_or(NotASecret::Itself)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let begins_well = !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty();
        match begins_well && name.chars().all(is_plain) {
            true => Ok(Self::Variable(name.to_owned())),
            false => Err(NotASecret::Name),
        }
    }
}

impl fmt::Display for Secret {
    /// Where it is, as the configuration says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(name) => write!(f, "${{{name}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_somewhere_else() {
        for text in ["file:/etc/convey/token", "${CONSUL_TOKEN}"] {
            assert_eq!(text.parse::<Secret>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("hunter2", NotASecret::Itself),
            ("$TOKEN", NotASecret::Itself),
            ("", NotASecret::Itself),
            ("file:token", NotASecret::Relative),
            ("${}", NotASecret::Name),
            ("${1A}", NotASecret::Name),
            ("${A B}", NotASecret::Name),
        ] {
            assert_eq!(text.parse::<Secret>(), Err(why), "{text}");
        }
    }
}
