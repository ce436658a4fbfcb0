//! What the files of a `certificate_dir` are, by their names.
//!
//! As HAProxy's `crt DIRECTORY` has it, but for files without a suffix that means something: those are left alone, and
//! `convey check` names them, where HAProxy takes a README for a broken certificate.

use std::{collections::BTreeSet, path::Path};

use super::tls::CertificateFiles;

/// Most entries of a directory, of whatever kind: each is looked at every few seconds.
pub const MAX_DIRECTORY_ENTRIES: usize = 10_000;

/// What a file of the directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryFile {
    /// `NAME.pem` or `NAME.crt`: a certificate with its chain, and its key unless that is beside it.
    Certificate,
    /// `NAME.key` or `NAME.ocsp`: a part of the certificate of that name.
    Part,
    /// What belongs there and is of no use: hidden files, and those of HAProxy that Convey needs not (`.issuer`, `.sctl`).
    Silent,
    /// Anything else.
    Unknown,
}

impl DirectoryFile {
    /// What a name says.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if name.starts_with('.') {
            return Self::Silent;
        }
        match name.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("pem" | "crt") => Self::Certificate,
            Some("key" | "ocsp") => Self::Part,
            Some("issuer" | "sctl") => Self::Silent,
            _ => Self::Unknown,
        }
    }

    /// Whether it is read.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Certificate | Self::Part)
    }
}

/// The certificates of a directory with these files, in the order of their names (bytes, not a language's order), and the
/// names that belong to none. `has_key` says whether a certificate's file has a key inside, which then counts, as with
/// HAProxy; `NAME.key` counts before `NAME.pem.key`, and so with `.ocsp`.
#[must_use]
pub fn certificates_of<'a>(
    dir: &Path,
    names: &BTreeSet<&'a str>,
    has_key: impl Fn(&str) -> bool,
) -> (Vec<CertificateFiles>, Vec<&'a str>) {
    let of_kind = |kind| (names.iter().copied()).filter(move |name| DirectoryFile::of(name) == kind);
    let mut unused: BTreeSet<&str> = of_kind(DirectoryFile::Unknown)
        .chain(of_kind(DirectoryFile::Part))
        .collect();
    let mut found = Vec::new();
    for name in of_kind(DirectoryFile::Certificate) {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let mut beside = |suffix: &str| {
            let candidates = [format!("{stem}.{suffix}"), format!("{name}.{suffix}")];
            let part = (candidates.into_iter()).find(|part| names.contains(part.as_str()))?;
            unused.remove(part.as_str());
            Some(dir.join(part))
        };
        let (key, ocsp) = (beside("key"), beside("ocsp"));
        found.push(CertificateFiles {
            cert: dir.join(name),
            key: key.filter(|_| !has_key(name)),
            ocsp,
        });
    }
    (found, unused.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], with_key: &[&str]) -> (Vec<String>, Vec<String>) {
        let names: BTreeSet<&str> = names.iter().copied().collect();
        let (found, unused) = certificates_of(Path::new("/d"), &names, |name| with_key.contains(&name));
        let text = |files: CertificateFiles| {
            let parts = [Some(files.cert), files.key, files.ocsp];
            let parts =
                parts.map(|part| part.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()));
            parts.map(|part| part.unwrap_or_else(|| "-".to_owned())).join(" ")
        };
        let unused = unused.into_iter().map(str::to_owned).collect();
        (found.into_iter().map(text).collect(), unused)
    }

    #[test]
    fn certificates_are_sorted_by_name_and_take_what_stands_beside_them() {
        let names = [
            "b.pem",
            "b.ocsp",
            "a.crt",
            "a.key",
            "a.example.com.pem",
            "a.example.com.pem.key",
        ];
        let (found, unused) = found(&names, &["b.pem"]);
        assert_eq!(
            found,
            [
                "a.crt a.key -",
                "a.example.com.pem a.example.com.pem.key -",
                "b.pem - b.ocsp"
            ]
        );
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn a_key_inside_counts_before_one_beside() {
        assert_eq!(found(&["a.pem", "a.key"], &["a.pem"]).0, ["a.pem - -"]);
        assert_eq!(found(&["a.pem", "a.key", "a.pem.key"], &[]).0, ["a.pem a.key -"]);
        // an RSA and an ECDSA pair of one name
        assert_eq!(
            found(&["a.pem", "a.crt", "a.key"], &["a.pem"]).0,
            ["a.crt a.key -", "a.pem - -"]
        );
    }

    #[test]
    fn hidden_files_are_none_and_what_belongs_to_no_certificate_is_named() {
        let names = [
            ".a.pem.new",
            "a.issuer",
            "README",
            "lonely.key",
            "www.example.com",
            "a.pem~",
        ];
        let (found, unused) = found(&names, &[]);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(unused, ["README", "a.pem~", "lonely.key", "www.example.com"]);
    }
}
