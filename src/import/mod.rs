//! Configurations of other load balancers as Convey's: text in, text out.
//!
//! ```text
//! bytes ─ InputFile ─ haproxy, nginx, … ─► Draft ─ print ─► TOML with comments ─ config ─► what is wrong with it
//! ```
//!
//! A kind reads its syntax into directives and registers each one with the [`Draft`]. It then accounts for each: translated,
//! covered by what Convey does anyway, different here, or without an equal. A directive that nothing accounted for is noted
//! as one without an equal, so none is lost in silence. What a directive means counts, not what it is called.
//!
//! # A new kind
//!
//! A variant of [`Kind`], a file with `translate(file, draft, files) -> Result<(), Unreadable>`, an arm in
//! [`translate`], and a value of `ImportKind` on the command line. A kind makes sections with [`Draft::section`], names with
//! [`Draft::frontend_name`] and its like, sets keys with [`Draft::set`] and says what is lost with [`Draft::differs`] and
//! [`Draft::no_equal`]. What it makes of repetitions (ranges, templates) it bounds with [`MAX_MADE`].

mod address;
mod awe4lb;
mod draft;
mod fields;
mod gobetween;
mod haproxy;
mod input;
mod ipvs;
mod keepalived;
mod lvs;
mod names;
mod nginx;
mod note;
mod paths;
mod port_names;
mod print;
mod sections;
mod tree;
mod value;

use crate::config::{self, Diagnostic, Options, Source};

pub use draft::{At, DirectiveId, Draft, MAX_DIRECTIVES, SectionId};
pub use input::{Files, InputFile, MAX_INPUT_BYTES, NoFiles, Unreadable};
pub use note::{Counts, Note, NoteKind};
pub use value::Value;

/// Most servers, addresses or the like that one directive may stand for.
pub const MAX_MADE: usize = 4_096;

/// Whose configuration is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy's.
    HaProxy,
    /// nginx's: what is in `stream`.
    Nginx,
    /// gobetween's.
    Gobetween,
    /// awe4lb's.
    Awe4lb,
    /// The kernel's, as ipvsadm prints it.
    Ipvs,
    /// keepalived's.
    Keepalived,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::HaProxy,
        Self::Nginx,
        Self::Gobetween,
        Self::Awe4lb,
        Self::Ipvs,
        Self::Keepalived,
    ];

    /// What the program is called in texts.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Gobetween => "gobetween",
            Self::Awe4lb => "awe4lb",
            Self::Ipvs => "IPVS",
            Self::Keepalived => "keepalived",
        }
    }
}

/// A translated configuration.
#[derive(Debug)]
pub struct Imported {
    /// The configuration: TOML, with a comment at each thing that differs or has no equal.
    pub text: String,
    /// What those comments say, in the order of the input.
    pub notes: Vec<Note>,
    /// How much was translated.
    pub counts: Counts,
    /// What is wrong with the configuration that came of it, such as a server without an address, or what should be looked at.
    pub findings: Vec<Diagnostic>,
}

/// What diagnostics call the configuration that came of it.
pub const TRANSLATION: &str = "the translation";

/// Translates a configuration. `files` are what it includes.
///
/// # Errors
/// It cannot be read as one of that kind.
pub fn translate(kind: Kind, file: &InputFile, files: &mut dyn Files) -> Result<Imported, Unreadable> {
    let mut draft = Draft::default();
    match kind {
        Kind::HaProxy => haproxy::translate(file, &mut draft, files)?,
        Kind::Nginx => nginx::translate(file, &mut draft, files)?,
        Kind::Gobetween => gobetween::translate(file, &mut draft, files)?,
        Kind::Awe4lb => awe4lb::translate(file, &mut draft, files)?,
        Kind::Ipvs => ipvs::translate(file, &mut draft, files)?,
        Kind::Keepalived => keepalived::translate(file, &mut draft, files)?,
    }
    if let Some((file, line)) = draft.one_too_many() {
        let message =
            format!("there are more than {MAX_DIRECTIVES} directives, which no real configuration has");
        return Err(Unreadable::new(file, line, message));
    }
    let (text, notes, counts) = draft.finish(kind.title(), &file.name);
    let source = Source {
        name: TRANSLATION.to_owned(),
        bytes: text.clone().into_bytes(),
    };
    let findings = match config::load(&source, Options::default()) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    };
    Ok(Imported {
        text,
        notes,
        counts,
        findings,
    })
}

#[cfg(test)]
mod garbage;
#[cfg(test)]
mod tests;
