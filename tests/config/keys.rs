//! Every key there is, taken from the schema: of the wrong type, given twice, misspelt, missing.

use convey::config::{self, Diagnostic, Options};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::text;

/// One test for each key of each section.
pub fn trials() -> Vec<Trial> {
    let schema = config::schema();
    let mut keys = Vec::new();
    collect(&schema, &schema, &mut Vec::new(), &mut keys);
    let each = |key: Key| Trial::test(key.path(), move || key.check()).with_kind("key");
    keys.into_iter().map(each).collect()
}

struct Key {
    section: Vec<String>,
    name: String,
    required: bool,
}

/// Every key below a schema; where names are the operator's, `x` stands for one, and `0` for the first of a list.
fn collect(root: &Value, schema: &Value, section: &mut Vec<String>, out: &mut Vec<Key>) {
    let schema = resolve(root, schema);
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|key| key == name))
    };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        out.push(Key {
            section: section.clone(),
            name: name.clone(),
            required: required(name),
        });
        section.push(name.clone());
        collect(root, property, section, out);
        section.pop();
    }
    if schema["items"].is_object() {
        section.push("0".to_owned());
        collect(root, &schema["items"], section, out);
        section.pop();
    }
    if schema["additionalProperties"].is_object() {
        section.push("x".to_owned());
        collect(root, &schema["additionalProperties"], section, out);
        section.pop();
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"]
        .as_str()
        .and_then(|at| root.pointer(at.trim_start_matches('#')));
    target.unwrap_or(schema)
}

impl Key {
    fn path(&self) -> String {
        let mut path = self.section.clone();
        path.push(self.name.clone());
        path.join(".")
    }

    /// A file with these lines in the key's section.
    fn file(&self, lines: &str) -> String {
        match self.section.as_slice() {
            [] => lines.to_owned(),
            [list @ .., item] if item == "0" => format!("[[{}]]\n{lines}", list.join(".")),
            section => format!("[{}]\n{lines}", section.join(".")),
        }
    }

    /// The errors about `line` of a file, and no others than missing keys besides.
    fn errors(&self, lines: &str, line: usize) -> Result<Vec<Diagnostic>, Failed> {
        let source = text(&self.file(lines));
        let found = config::load(&source, Options::default())
            .err()
            .ok_or("it loads")?;
        let stray = |d: &Diagnostic| d.line != line && !d.message.starts_with("missing key");
        if found.iter().any(stray) {
            return Err(config::render(&found, &source, false).into());
        }
        Ok(found.into_iter().filter(|d| d.line == line).collect())
    }

    fn check(&self) -> Result<(), Failed> {
        let Self { name, .. } = self;
        let first = usize::from(!self.section.is_empty()) + 1;

        // No key takes a date.
        let wrong = self.errors(&format!("{name} = 1979-05-27\n"), first)?;
        expect(&wrong, &self.path(), &format!("`{name}` must be "))?;

        let twice = self.errors(&format!("{name} = 1979-05-27\n{name} = 1979-05-27\n"), first + 1);
        // The first of the two is wrong as well, which is the one stray error.
        let twice = twice
            .err()
            .and_then(|failed| failed.message().map(str::to_owned))
            .unwrap_or_default();
        if !twice.contains(&format!("error: key `{name}` is defined twice")) {
            return Err(format!("given twice: {twice}").into());
        }

        let misspelt = self.errors(&format!("{name}x = 1\n"), first)?;
        let mut path = self.section.clone();
        path.push(format!("{name}x"));
        expect(&misspelt, &path.join("."), &format!("unknown key `{name}x`"))?;
        if misspelt
            .iter()
            .any(|d| d.help.as_deref() != Some(&format!("did you mean `{name}`?")))
        {
            return Err(format!("{misspelt:?}").into());
        }

        let source = text(&self.file("\n"));
        let missing = format!("missing key `{name}`");
        let reported = config::load(&source, Options::default())
            .err()
            .is_some_and(|found| found.iter().any(|d| d.message == missing));
        if reported == self.required {
            Ok(())
        } else {
            Err(format!("missing: {reported}").into())
        }
    }
}

fn expect(found: &[Diagnostic], path: &str, message: &str) -> Result<(), Failed> {
    match found {
        [one] if one.path == path && one.message.starts_with(message) => Ok(()),
        _ => Err(format!("not one error `{message}` at {path}: {found:?}").into()),
    }
}
