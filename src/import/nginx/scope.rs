//! What holds for a server: its own directives, and those of `stream` that it does not have.

use std::collections::BTreeMap;

use super::parse::Directive;
use crate::import::Draft;

/// Directives by their names.
pub type ByName<'a> = BTreeMap<&'a str, Vec<&'a Directive>>;

/// Sorts directives by their names.
pub fn by_name(directives: &[Directive]) -> ByName<'_> {
    let mut sorted = ByName::new();
    for directive in directives {
        sorted.entry(directive.name.as_str()).or_default().push(directive);
    }
    sorted
}

/// The directives around a server, and those in it.
#[derive(Debug)]
pub struct Scope<'a> {
    outer: &'a ByName<'a>,
    inner: ByName<'a>,
    own: &'a [Directive],
}

impl<'a> Scope<'a> {
    /// Of a server in `stream`.
    pub fn new(outer: &'a ByName<'a>, own: &'a [Directive]) -> Self {
        Self {
            outer,
            inner: by_name(own),
            own,
        }
    }

    /// The directives of a name: the server's own, or those around it if it has none.
    pub fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.inner
            .get(name)
            .or_else(|| self.outer.get(name))
            .cloned()
            .unwrap_or_default()
    }

    /// Those of several names in their order, the server's own, or those around it if it has none of them.
    pub fn any(&self, names: &[&str]) -> Vec<&'a Directive> {
        let of = |sorted: &ByName<'a>| -> Vec<&'a Directive> {
            let mut found: Vec<_> = names
                .iter()
                .filter_map(|name| sorted.get(name))
                .flatten()
                .copied()
                .collect();
            found.sort_by_key(|directive| directive.id);
            found
        };
        let own = of(&self.inner);
        if own.is_empty() { of(self.outer) } else { own }
    }

    /// The directive of a name, which counts as translated.
    pub fn take(&self, name: &str, draft: &mut Draft) -> Option<&'a Directive> {
        let directive = *self.inner.get(name).or_else(|| self.outer.get(name))?.last()?;
        draft.translated(directive.id);
        Some(directive)
    }

    /// The first argument of a directive.
    pub fn text(&self, name: &str, draft: &mut Draft) -> Option<&'a str> {
        self.take(name, draft).map(|directive| directive.arg(0))
    }

    /// Whether a directive says `on`.
    pub fn is_on(&self, name: &str, draft: &mut Draft) -> bool {
        self.text(name, draft) == Some("on")
    }

    /// The server's own directives.
    pub const fn own(&self) -> &'a [Directive] {
        self.own
    }
}
