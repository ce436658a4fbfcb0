//! PEM files as operators have them: with text between the sections, several kinds in one file, Windows line ends, or
//! something else altogether.

use std::ops::Range;

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// Most sections of one file: the bundle of all public CAs has 150.
const MAX_SECTIONS: usize = 10_000;

/// Why a file cannot be used as PEM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Nothing, or white space only.
    #[error("the file is empty")]
    Empty,
    /// DER or PKCS #12.
    #[error(
        "the file is binary (DER or PKCS #12), not PEM: convert it with `openssl x509 -inform der`, \
         `openssl pkey -inform der` or `openssl pkcs12 -nodes`"
    )]
    Binary,
    /// Text without a section.
    #[error("the file is not PEM: no line begins with -----BEGIN")]
    NotPem,
    /// A section without an end.
    #[error("the section {label} on line {line} has no end: the file is cut off")]
    CutOff {
        /// What stands after BEGIN.
        label: String,
        /// Line of the file, from 1.
        line: usize,
    },
    /// A section whose content is no base64.
    #[error("the section {label} on line {line} is damaged: it is not base64")]
    Damaged {
        /// What stands after BEGIN.
        label: String,
        /// Line of the file, from 1.
        line: usize,
    },
    /// More than [`MAX_SECTIONS`].
    #[error("the file has more than {MAX_SECTIONS} sections")]
    TooMany,
    /// A key that needs a password.
    #[error(
        "the key is encrypted, and nobody is there to type its password: write it without one, `openssl pkey -in KEY -out NEW`"
    )]
    EncryptedKey,
    /// A key or certificate in a form that is not read.
    #[error("sections of kind {0} are not supported: convert it with openssl")]
    Form(String),
}

/// Whether a file is PEM and has a private key, of whatever kind: then it needs no other file for that.
#[must_use]
pub fn has_private_key(bytes: &[u8]) -> bool {
    let sections = PemFile::new(bytes).map(|file| file.sections).unwrap_or_default();
    (sections.iter()).any(|section| section.label.ends_with("PRIVATE KEY"))
}

/// A PEM file, cut into its sections and not decoded.
#[derive(Debug)]
pub(super) struct PemFile<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    label: String,
    line: usize,
    range: Range<usize>,
    /// The header that OpenSSL's older format for encrypted keys has.
    is_encrypted: bool,
}

impl<'a> PemFile<'a> {
    /// Cuts a file into its sections.
    ///
    /// # Errors
    /// It is none, or a section has no end.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PemError> {
        // an editor's byte order mark would hide the first section
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return Err(PemError::Empty);
        }
        let sections = sections(bytes)?;
        if sections.is_empty() {
            let is_binary = bytes.first() == Some(&0x30) || bytes.contains(&0);
            return Err(if is_binary {
                PemError::Binary
            } else {
                PemError::NotPem
            });
        }
        Ok(Self { bytes, sections })
    }

    /// Its certificates, in the order of the file.
    ///
    /// # Errors
    /// One is damaged or in one of OpenSSL's own formats.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        self.refuse("TRUSTED CERTIFICATE")?;
        self.refuse("X509 CERTIFICATE")?;
        self.decoded(|label| label == "CERTIFICATE")
    }

    /// Its private keys.
    ///
    /// # Errors
    /// One is damaged, encrypted or of a kind that is not read.
    pub fn keys(&self) -> Result<Vec<PrivateKeyDer<'static>>, PemError> {
        let is_encrypted =
            |section: &Section| section.is_encrypted || section.label == "ENCRYPTED PRIVATE KEY";
        if self.sections.iter().any(is_encrypted) {
            return Err(PemError::EncryptedKey);
        }
        self.refuse("OPENSSH PRIVATE KEY")?;
        self.refuse("DSA PRIVATE KEY")?;
        self.decoded(|label| matches!(label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY"))
    }

    /// Its revocation lists.
    ///
    /// # Errors
    /// One is damaged.
    pub fn crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
        self.decoded(|label| label == "X509 CRL")
    }

    /// The kinds of its sections, for saying what a file has in place of what it should have.
    pub fn kinds(&self) -> String {
        let mut kinds: Vec<&str> = self
            .sections
            .iter()
            .map(|section| section.label.as_str())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.truncate(4);
        kinds.join(", ")
    }

    fn refuse(&self, label: &str) -> Result<(), PemError> {
        let found = self.sections.iter().any(|section| section.label == label);
        if found {
            Err(PemError::Form(label.to_owned()))
        } else {
            Ok(())
        }
    }

    fn decoded<T: PemObject>(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<T>, PemError> {
        (self.sections.iter())
            .filter(|section| wanted(&section.label))
            .map(|section| {
                let text = self.bytes.get(section.range.clone()).unwrap_or_default();
                // what could be wrong with the lines around it was looked at when the file was cut
                T::from_pem_slice(text).map_err(|_: pem::Error| PemError::Damaged {
                    label: section.label.clone(),
                    line: section.line,
                })
            })
            .collect()
    }
}

/// The sections from `-----BEGIN X-----` to `-----END X-----` (RFC 7468), and OpenSSL's header of encrypted keys in them.
fn sections(bytes: &[u8]) -> Result<Vec<Section>, PemError> {
    let mut sections = Vec::new();
    let mut open: Option<Section> = None;
    let mut at = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (begin, end) = (at, at + line.len());
        at = end;
        let line = line.trim_ascii_end();
        if let Some(label) = label(line, b"-----BEGIN ") {
            if let Some(unfinished) = open.take() {
                return Err(unfinished.cut_off());
            }
            open = Some(Section {
                label,
                line: number + 1,
                range: begin..end,
                is_encrypted: false,
            });
        } else if let Some(section) = &mut open {
            section.range.end = end;
            section.is_encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
            if label(line, b"-----END ").is_some_and(|end| end == section.label) {
                if sections.len() == MAX_SECTIONS {
                    return Err(PemError::TooMany);
                }
                sections.extend(open.take());
            }
        }
    }
    match open {
        Some(unfinished) => Err(unfinished.cut_off()),
        None => Ok(sections),
    }
}

impl Section {
    fn cut_off(self) -> PemError {
        PemError::CutOff {
            label: self.label,
            line: self.line,
        }
    }
}

/// The kind that a line begins or ends a section of.
fn label(line: &[u8], before: &[u8]) -> Option<String> {
    const MAX_LABEL: usize = 64;
    let label = line.strip_prefix(before)?.strip_suffix(b"-----")?;
    let is_label = label.len() <= MAX_LABEL && label.iter().all(|byte| matches!(byte, b' '..=b'~'));
    is_label.then(|| String::from_utf8_lossy(label).into_owned())
}
