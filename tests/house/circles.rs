//! No circles: of the files and folders that lie beside each other, none needs another that needs it.
//!
//! Read from the paths that the sources name: `crate::…`, `super::…`, `self::…`, and through what a `mod.rs` passes on. A
//! `mod.rs` may hold its children's types, so what it takes from its children and they from it is no circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{identifier, sources, without_comments};

/// Circles that are still there, by folder. A circle that has changed or gone must be changed or struck off here.
const LEFT: &[(&str, &[&str])] = &[("daemon", &["answers", "control", "reload", "stop"])];

/// A module's path from the crate's root.
type Module = Vec<String>;

/// The files of the crate, without their tests.
struct House {
    files: BTreeMap<Module, String>,
    /// What each file imports: the name there, and the path that it stands for.
    names: BTreeMap<Module, Vec<(String, Module)>>,
}

/// The edges of one folder: from, to, and by which names.
type Edges = BTreeMap<(String, String), BTreeSet<String>>;

#[test]
fn no_circle_among_siblings() {
    let house = House::new(sources("src"));
    let found: BTreeMap<String, Vec<(BTreeSet<String>, String)>> = house.circles();
    let mut left: Vec<(&str, BTreeSet<String>)> = LEFT
        .iter()
        .map(|(folder, names)| (*folder, names.iter().map(ToString::to_string).collect()))
        .collect();
    let mut wrong = String::new();
    for (folder, circles) in &found {
        for (circle, how) in circles {
            let known = left.iter().position(|(f, c)| f == folder && c == circle);
            match known {
                Some(index) => drop(left.remove(index)),
                None => _ = writeln!(wrong, "src/{folder}: a circle of {circle:?}\n{how}"),
            }
        }
    }
    for (folder, circle) in left {
        let _ = writeln!(
            wrong,
            "src/{folder}: no such circle any more, strike it off: {circle:?}"
        );
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

impl House {
    fn new(sources: Vec<(PathBuf, String)>) -> Self {
        let files: BTreeMap<Module, String> = sources
            .into_iter()
            .filter(|(path, _)| !is_test(path) && path.as_os_str() != "main.rs")
            .map(|(path, text)| (module(&path), product(&text)))
            .collect();
        let mut house = Self {
            files,
            names: BTreeMap::new(),
        };
        for (module, text) in &house.files {
            let names = declarations(text)
                .flat_map(leaves)
                .filter_map(|leaf| Some((leaf.name.clone(), house.absolute(module, &leaf.path)?)))
                .collect();
            house.names.insert(module.clone(), names);
        }
        house
    }

    /// The path from the root that a path in a file stands for; `None` if it leads out of the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut base = module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                self.files.contains_key(&base).then_some(())?;
                rest = &rest[1..];
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file that has what a path names.
    fn home(&self, path: &[String]) -> Module {
        let mut home = Module::new();
        for (depth, segment) in path.iter().enumerate() {
            home.push(segment.clone());
            if self.files.contains_key(&home) {
                continue;
            }
            home.pop();
            let passed_on = self.names[&home].iter().find_map(|(name, target)| {
                let by_name = name == segment;
                let by_star = name == "*" && self.defines(target, segment);
                // what imports itself is one of its own
                ((by_name || by_star) && !target.starts_with(&path[..=depth])).then_some(target)
            });
            return passed_on.map_or(home, |target| self.home(target));
        }
        home
    }

    fn defines(&self, module: &Module, name: &str) -> bool {
        let words = [
            "struct", "enum", "fn", "trait", "type", "const", "static", "union",
        ];
        self.files.get(module).is_some_and(|text| {
            (words.iter()).any(|word| {
                let definition = format!("{word} {name}");
                let mut places = text.match_indices(&definition);
                places.any(|(at, _)| !text[at + definition.len()..].starts_with(is_identifier))
            })
        })
    }

    /// The edges of every folder, from a file or folder in it to another.
    fn edges(&self) -> BTreeMap<String, Edges> {
        let mut edges: BTreeMap<String, Edges> = BTreeMap::new();
        for (from, text) in &self.files {
            for path in named_paths(text) {
                let Some(to) = self.absolute(from, &path).map(|path| self.home(&path)) else {
                    continue;
                };
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) else {
                    continue;
                };
                let folder = edges.entry(from[..shared].join("/")).or_default();
                let names = folder.entry((one.clone(), other.clone())).or_default();
                names.insert(format!("{}: {}", from.join("/"), path.join("::")));
            }
        }
        edges
    }

    /// What needs itself through others, of every folder, and how.
    fn circles(&self) -> BTreeMap<String, Vec<(BTreeSet<String>, String)>> {
        let edges = self.edges();
        (edges.iter())
            .map(|(folder, edges)| (folder.clone(), circles(edges)))
            .filter(|(_, circles)| !circles.is_empty())
            .collect()
    }
}

/// Sets of two and more that all lead to one another.
fn circles(edges: &Edges) -> Vec<(BTreeSet<String>, String)> {
    let from: BTreeSet<&str> = edges.keys().map(|(from, _)| from.as_str()).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = from.iter().map(|one| (*one, reach(one, edges))).collect();
    let mut found: Vec<(BTreeSet<String>, String)> = Vec::new();
    for (one, to) in &reached {
        let back = |other: &&&str| reached.get(**other).is_some_and(|back| back.contains(one));
        let circle: BTreeSet<String> = to.iter().filter(back).map(ToString::to_string).collect();
        if circle.len() < 2 || found.iter().any(|(known, _)| *known == circle) {
            continue;
        }
        let mut how = String::new();
        for ((a, b), names) in edges {
            if circle.contains(a) && circle.contains(b) {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let _ = writeln!(how, "  {a} needs {b}: {}", names.join(", "));
            }
        }
        found.push((circle, how));
    }
    found
}

/// What one leads to.
fn reach<'a>(one: &str, edges: &'a Edges) -> BTreeSet<&'a str> {
    let next = |one: &str| -> Vec<&'a str> {
        let of_one = edges.keys().filter(|(from, _)| from == one);
        of_one.map(|(_, to)| to.as_str()).collect()
    };
    let (mut reached, mut todo) = (BTreeSet::new(), next(one));
    while let Some(other) = todo.pop() {
        if reached.insert(other) {
            todo.extend(next(other));
        }
    }
    reached
}

fn is_test(path: &Path) -> bool {
    let is = |part: &std::ffi::OsStr| {
        ["tests", "tests.rs", "testing", "testing.rs"]
            .iter()
            .any(|name| part == *name)
    };
    path.iter().any(is)
}

fn module(path: &Path) -> Module {
    let mut module: Module = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    module.pop_if(|last| last == "mod" || last == "lib");
    module
}

/// A source without comments and without the tests at its end.
fn product(text: &str) -> String {
    let code = without_comments(text);
    let tests = code.find("#[cfg(test)]\nmod tests {");
    code[..tests.unwrap_or(code.len())].to_owned()
}

const fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The trees of all `use` declarations.
fn declarations(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("use ").filter_map(|(at, word)| {
        let before = text[..at].trim_end_matches(' ');
        let is_declaration = before.is_empty() || before.ends_with(['\n', ')']) || before.ends_with("pub");
        let tree = &text[at + word.len()..];
        is_declaration.then(|| tree.find(';').map(|end| &tree[..end]))?
    })
}

/// All paths that start at the root, at the file's own module or above it.
fn named_paths(text: &str) -> Vec<Module> {
    let starts = ["crate::", "super::", "self::"];
    let mut paths = Vec::new();
    for start in starts {
        for (at, _) in text.match_indices(start) {
            if text[..at].ends_with(|c: char| is_identifier(c) || c == ':') {
                continue;
            }
            paths.extend(leaves(&text[at..]).into_iter().map(|leaf| leaf.path));
        }
    }
    paths
}

/// One name of a tree of paths.
struct Leaf {
    path: Module,
    /// What it is called there.
    name: String,
}

/// `a::{b, c::{self, d as e}}` is a::b, a::c and a::c::d.
fn leaves(tree: &str) -> Vec<Leaf> {
    let mut found = Vec::new();
    branch(tree.trim_start(), &Module::new(), &mut found);
    found
}

/// Reads one tree; what stands behind it.
fn branch<'a>(tree: &'a str, above: &Module, found: &mut Vec<Leaf>) -> &'a str {
    let mut path = above.clone();
    let mut rest = tree;
    loop {
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = group.trim_start().trim_start_matches(',').trim_start();
                match group.strip_prefix('}') {
                    Some(behind) => return behind,
                    None if group.is_empty() => return group,
                    None => {
                        let behind = branch(group, &path, found);
                        if behind.len() == group.len() {
                            return "";
                        }
                        group = behind;
                    }
                }
            }
        }
        let segment = if rest.starts_with('*') {
            "*".to_owned()
        } else {
            identifier(rest)
        };
        rest = &rest[segment.len()..];
        if segment.is_empty() {
            break;
        }
        if segment != "self" || path.is_empty() {
            path.push(segment);
        }
        match rest.strip_prefix("::") {
            Some(deeper) => rest = deeper,
            None => break,
        }
    }
    let Some(last) = path.last() else { return rest };
    let mut name = last.clone();
    if let Some(alias) = rest.strip_prefix(" as ") {
        name = identifier(alias);
        rest = &alias[name.len()..];
    }
    if last == "*" {
        path.pop();
    }
    found.push(Leaf { path, name });
    rest
}

mod of_the_test_itself {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()));
        let found = House::new(sources.collect()).circles();
        (found.into_iter())
            .flat_map(|(folder, circles)| {
                circles.into_iter().map(move |(circle, _)| {
                    let names: Vec<_> = circle.into_iter().collect();
                    format!("{folder}: {}", names.join(" "))
                })
            })
            .collect()
    }

    #[test]
    fn files_that_need_each_other_are_a_circle() {
        let one = ("room/one.rs", "use super::two::Two;");
        let mod_rs = ("room/mod.rs", "mod one;\nmod two;");
        let lib = ("lib.rs", "mod room;");
        for text in [
            "use super::one;",
            "use crate::room::one::{self, One};",
            "use crate::{base, room::one::One};",
            "fn f() -> super::one::One { todo!() }",
        ] {
            assert_eq!(
                circles_of(&[lib, mod_rs, one, ("room/two.rs", text)]),
                ["room: one two"],
                "{text}"
            );
        }
        assert!(circles_of(&[lib, mod_rs, one, ("room/two.rs", "use super::Own;")]).is_empty());
    }

    #[test]
    fn what_a_mod_rs_passes_on_is_its_childs() {
        let one = ("room/one.rs", "pub struct One;\nuse super::Two;");
        let two = ("room/two.rs", "pub struct Two;\nuse super::One;");
        for passed_on in [
            "pub use one::One;\npub use two::Two;",
            "pub use one::*;\npub use self::two::Two as Two;",
        ] {
            let mod_rs = ("room/mod.rs", passed_on);
            assert_eq!(
                circles_of(&[("lib.rs", ""), mod_rs, one, two]),
                ["room: one two"],
                "{passed_on}"
            );
        }
        let own = (
            "room/mod.rs",
            "mod one;\npub struct One;\npub struct Two;\nuse one::Own;",
        );
        assert!(circles_of(&[("lib.rs", ""), own, one, two]).is_empty());
    }

    #[test]
    fn folders_are_siblings_too_and_a_circle_may_be_long() {
        let files = [
            ("lib.rs", ""),
            ("a/mod.rs", ""),
            ("a/deep.rs", "use crate::b::deep::X;"),
            ("b/mod.rs", ""),
            ("b/deep.rs", "use crate::c;"),
            ("c.rs", "use crate::a;"),
        ];
        assert_eq!(circles_of(&files), [": a b c"]);
    }

    #[test]
    fn tests_comments_and_other_crates_are_no_edges() {
        let two = "//! See [`super::one`].\nuse one::One;\nuse std::fmt;\n#[cfg(test)]\nmod tests {\n    use super::one;\n}";
        let files = [
            ("lib.rs", ""),
            ("room/mod.rs", ""),
            ("room/one.rs", "use super::two;"),
            ("room/two.rs", two),
            ("room/tests.rs", "use super::one;"),
        ];
        assert!(circles_of(&files).is_empty());
    }
}
