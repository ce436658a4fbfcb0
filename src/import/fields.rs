//! Tables of a document, key by key: each key that is looked up is registered as a directive, and so are those that never are.

use super::{
    draft::{At, DirectiveId, Draft},
    tree::{Key, Node, Table, Value},
};

/// Whether keys that differ in case are the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// They are, as Go reads TOML and JSON.
    Folded,
    /// They are not.
    Exact,
}

/// What is the same for all tables of a document.
#[derive(Debug, Clone, Copy)]
pub struct Document<'t> {
    /// Name of the file.
    pub file: &'t str,
    /// How its keys are compared.
    pub case: Case,
    /// What is said of keys that nobody asks for.
    pub unknown: &'t str,
}

/// The keys of a table.
#[derive(Debug)]
pub struct Fields<'t> {
    document: Document<'t>,
    table: &'t Table,
    is_taken: Vec<bool>,
    home: At,
}

/// A key with a scalar.
#[derive(Debug, Clone, Copy)]
pub struct Scalar<'t> {
    /// Its directive.
    pub id: DirectiveId,
    /// Its value.
    pub text: &'t str,
}

static EMPTY: Table = Vec::new();

impl<'t> Fields<'t> {
    /// The keys of a table. What nobody asks for is noted at `home`.
    pub fn new(document: Document<'t>, table: &'t Table, home: At) -> Self {
        Self {
            document,
            table,
            is_taken: vec![false; table.len()],
            home,
        }
    }

    /// Of a table that is not there.
    pub fn none(document: Document<'t>, home: At) -> Self {
        Self::new(document, &EMPTY, home)
    }

    /// Takes a key with its value, once; `null` counts as a key that is not there.
    fn take(&mut self, name: &str) -> Option<(&'t Key, &'t Node)> {
        let table = self.table;
        let is = |key: &Key| match self.document.case {
            Case::Folded => key.name.eq_ignore_ascii_case(name),
            Case::Exact => key.name == name,
        };
        // the last one counts where a key comes twice
        let index = table.iter().rposition(|(key, _)| is(key))?;
        let (key, node) = &table[index];
        let is_taken = self.is_taken.get_mut(index)?;
        if std::mem::replace(is_taken, true) {
            return None;
        }
        (node.value != Value::Null).then_some((key, node))
    }

    fn register(&self, draft: &mut Draft, key: &Key, node: &Node) -> DirectiveId {
        let text = match is_secret(&key.name) {
            true => format!("{} = …", key.name),
            false => format!("{} = {}", key.name, node.quoted()),
        };
        draft.directive(self.document.file, key.line, &text, self.home)
    }

    /// A key with a scalar. One with something else is noted.
    pub fn scalar(&mut self, draft: &mut Draft, name: &str) -> Option<Scalar<'t>> {
        let (key, node) = self.take(name)?;
        let id = self.register(draft, key, node);
        match node.scalar() {
            Some(text) => Some(Scalar { id, text }),
            None => {
                draft.no_equal(id, self.home, "one value is expected here, not several");
                None
            }
        }
    }

    /// As [`scalar`](Self::scalar); an empty one is as good as none.
    pub fn text(&mut self, draft: &mut Draft, name: &str) -> Option<Scalar<'t>> {
        let scalar = self.scalar(draft, name)?;
        if scalar.text.is_empty() {
            draft.translated(scalar.id);
            return None;
        }
        Some(scalar)
    }

    /// A key whose scalar means something; others are noted with `expected`.
    pub fn parsed<T>(
        &mut self,
        draft: &mut Draft,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<(DirectiveId, T)> {
        let scalar = self.text(draft, name)?;
        let read = parse(scalar.text);
        if read.is_none() {
            draft.no_equal(scalar.id, self.home, &format!("this is not {expected}"));
        }
        Some((scalar.id, read?))
    }

    /// A key with true or false.
    pub fn flag(&mut self, draft: &mut Draft, name: &str) -> Option<(DirectiveId, bool)> {
        self.parsed(draft, name, "true or false", |text| text.parse().ok())
    }

    /// A key with a number of at least 0.
    pub fn number(&mut self, draft: &mut Draft, name: &str) -> Option<(DirectiveId, u64)> {
        self.parsed(draft, name, "a number", |text| text.parse().ok())
    }

    /// A key with a list of scalars, as one directive.
    pub fn list(&mut self, draft: &mut Draft, name: &str) -> Option<(DirectiveId, Vec<&'t str>)> {
        let (key, node) = self.take(name)?;
        let id = self.register(draft, key, node);
        let texts = match &node.value {
            Value::List(items) => items.iter().map(Node::scalar).collect(),
            _ => node.scalar().map(|text| vec![text]),
        };
        if texts.is_none() {
            draft.no_equal(id, self.home, "a list of texts is expected here");
        }
        Some((id, texts?))
    }

    /// A key with a list of scalars, a directive each.
    pub fn items(&mut self, draft: &mut Draft, name: &str) -> Vec<Scalar<'t>> {
        let Some((key, node)) = self.take(name) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            let id = self.register(draft, key, node);
            draft.no_equal(id, self.home, "a list is expected here");
            return Vec::new();
        };
        let mut scalars = Vec::new();
        for item in items {
            let id = draft.directive(self.document.file, item.line, &item.quoted(), self.home);
            match item.scalar() {
                Some(text) => scalars.push(Scalar { id, text }),
                None => draft.no_equal(id, self.home, "a text is expected here"),
            }
        }
        scalars
    }

    /// A table below a key.
    pub fn table(&mut self, draft: &mut Draft, name: &str, home: At) -> Option<Fields<'t>> {
        let (key, node) = self.take(name)?;
        match node.table() {
            Some(table) => Some(Fields::new(self.document, table, home)),
            None => {
                let id = self.register(draft, key, node);
                draft.no_equal(id, home, "a table is expected here");
                None
            }
        }
    }

    /// The tables of a list below a key.
    pub fn tables(&mut self, draft: &mut Draft, name: &str, home: At) -> Vec<Fields<'t>> {
        let Some((key, node)) = self.take(name) else {
            return Vec::new();
        };
        let tables = match &node.value {
            Value::List(items) => items.iter().map(Node::table).collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            let id = self.register(draft, key, node);
            draft.no_equal(id, home, "a list of tables is expected here");
            return Vec::new();
        };
        let tables: Vec<&'t Table> = tables;
        tables
            .into_iter()
            .map(|table| Fields::new(self.document, table, home))
            .collect()
    }

    /// Every key with the table below it, where names are free to choose.
    pub fn named(&mut self, draft: &mut Draft) -> Vec<(&'t str, Fields<'t>)> {
        let table = self.table;
        let mut named = Vec::new();
        for (index, (key, node)) in table.iter().enumerate() {
            if self.is_taken.get(index) != Some(&false) {
                continue;
            }
            self.is_taken[index] = true;
            match node.table() {
                Some(table) => named.push((key.name.as_str(), Fields::new(self.document, table, self.home))),
                None => {
                    let id = self.register(draft, key, node);
                    draft.no_equal(id, self.home, "a table is expected here");
                }
            }
        }
        named
    }

    /// Where notes stand from now on.
    pub fn set_home(&mut self, home: At) {
        self.home = home;
    }

    /// Where notes stand.
    pub const fn home(&self) -> At {
        self.home
    }

    /// Whether a key is there, without taking it.
    pub fn has(&self, name: &str) -> bool {
        self.table.iter().any(|(key, node)| {
            node.value != Value::Null
                && match self.document.case {
                    Case::Folded => key.name.eq_ignore_ascii_case(name),
                    Case::Exact => key.name == name,
                }
        })
    }

    /// Notes what nobody asked for.
    pub fn finish(self, draft: &mut Draft) {
        for (index, (key, node)) in self.table.iter().enumerate() {
            if self.is_taken.get(index) == Some(&false) {
                self.rest(draft, key, node);
            }
        }
    }

    /// Notes all of it: what it belongs to is left out.
    pub fn leave_out(mut self, draft: &mut Draft, text: &'t str) {
        self.document.unknown = text;
        self.finish(draft);
    }

    /// Every key with a value at or below a node, as without an equal. Documents are not nested deeper than their reader goes.
    fn rest(&self, draft: &mut Draft, key: &Key, node: &Node) {
        let below = match &node.value {
            Value::Table(table) => table,
            Value::List(items) if items.iter().any(|item| item.table().is_some()) => {
                for item in items {
                    for (key, node) in item.table().into_iter().flatten() {
                        self.rest(draft, key, node);
                    }
                }
                return;
            }
            _ => {
                let id = self.register(draft, key, node);
                draft.no_equal(id, self.home, self.document.unknown);
                return;
            }
        };
        for (key, node) in below {
            self.rest(draft, key, node);
        }
    }
}

/// Whether the value of a key is not to be repeated.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "token", "secret"]
        .iter()
        .any(|word| key.contains(word))
        && !key.ends_with("path")
}
