//! Lists of ciphers and groups, as OpenSSL and what is built on it write them.

use crate::config::{CipherSuite, Group};

/// Names that Convey knows, and those that it does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// For `ciphers` or `groups`.
    pub known: Vec<String>,
    /// For a note.
    pub unknown: Vec<String>,
}

/// Sorts the names of a cipher list, `A:B:!C`.
#[must_use]
pub fn ciphers(text: &str) -> Sorted {
    sorted(text, |name| name.parse::<CipherSuite>().is_ok())
}

/// Sorts the names of a list of groups, `A:B` or `A,B`.
#[must_use]
pub fn groups(text: &str) -> Sorted {
    sorted(text, |name| name.parse::<Group>().is_ok())
}

fn sorted(text: &str, is_known: impl Fn(&str) -> bool) -> Sorted {
    let names = text.split([':', ',', ' ']).filter(|name| !name.is_empty());
    let (known, unknown) = names.map(str::to_owned).partition(|name| is_known(name));
    Sorted { known, unknown }
}

/// The suites of both halves: of TLS 1.3, and of older versions. Where only one half is named, the other stays whole; with
/// neither, Convey's own choice holds.
#[must_use]
pub fn suites(of_13: &[String], older: &[String]) -> Option<Vec<String>> {
    if of_13.is_empty() && older.is_empty() {
        return None;
    }
    let is_13 = |suite: &&CipherSuite| {
        let name = suite.to_string();
        name.starts_with("TLS_AES") || name.starts_with("TLS_CHACHA")
    };
    let whole = |wanted: bool| {
        CipherSuite::ALL
            .iter()
            .filter(move |suite| is_13(suite) == wanted)
            .map(ToString::to_string)
    };
    let mut list: Vec<String> = of_13.to_vec();
    if of_13.is_empty() {
        list.extend(whole(true));
    }
    match older.is_empty() {
        true => list.extend(whole(false)),
        false => list.extend(older.iter().cloned()),
    }
    Some(list)
}
