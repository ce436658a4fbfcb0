//! The section that a discovery becomes.

use crate::import::{At, Draft, SectionId, fields::Fields};

/// A section in the making.
pub struct Source<'a> {
    /// The section.
    pub section: SectionId,
    /// Where its notes stand.
    pub at: At,
    /// The configuration.
    pub draft: &'a mut Draft,
}

impl Source<'_> {
    /// Sets a key to a text that the input has.
    pub fn text(&mut self, fields: &mut Fields<'_>, key: &str, name: &str) {
        if let Some(scalar) = fields.text(self.draft, key) {
            self.draft.set(self.section, &[name], scalar.text);
            self.draft.translated(scalar.id);
        }
    }

    /// Sets `url`.
    pub fn url(&mut self, fields: &mut Fields<'_>, key: &str) {
        self.text(fields, key, "url");
    }

    /// Sets `port`.
    pub fn port(&mut self, fields: &mut Fields<'_>, key: &str) {
        let read = fields.parsed(self.draft, key, "a port", |text| {
            text.parse::<u16>().ok().filter(|port| *port > 0)
        });
        if let Some((id, port)) = read {
            self.draft.set(self.section, &["port"], port);
            self.draft.translated(id);
        }
    }
}
