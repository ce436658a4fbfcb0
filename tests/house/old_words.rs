//! What people read has the operator's words: `old_words.txt` lists the phrases that are gone, and where they are looked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

const LIST: &str = include_str!("old_words.txt");

/// What is looked at in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it.
    Text,
    /// The string literals of a Rust file, outside its tests.
    Strings,
    /// These and its doc comments.
    Help,
}

#[derive(Debug, PartialEq, Eq)]
struct Phrase {
    words: Vec<String>,
    /// Words that make it right if they follow.
    unless: Vec<String>,
}

#[derive(Debug, Default)]
struct List {
    phrases: Vec<Phrase>,
    places: Vec<(Part, PathBuf)>,
    later: Vec<PathBuf>,
}

fn words(text: &str) -> Vec<String> {
    tokens(text).into_iter().map(|(word, _)| word).collect()
}

fn parse(list: &str) -> Result<List, String> {
    let mut found = List::default();
    let mut section = "";
    for line in list.lines().map(str::trim) {
        match (section, line) {
            (_, "") => {}
            (_, comment) if comment.starts_with('#') => {}
            (_, "[phrases]" | "[places]" | "[later]") => section = line,
            ("[phrases]", phrase) => {
                let (phrase, unless) = phrase.split_once(" | ").unwrap_or((phrase, ""));
                found.phrases.push(Phrase {
                    words: words(phrase),
                    unless: words(unless),
                });
            }
            ("[places]", place) => {
                let part = match place.split_once(' ') {
                    Some(("text", path)) => (Part::Text, path),
                    Some(("strings", path)) => (Part::Strings, path),
                    Some(("help", path)) => (Part::Help, path),
                    _ => return Err(format!("`{place}`: write text, strings or help, and a path")),
                };
                found.places.push((part.0, part.1.into()));
            }
            ("[later]", path) => found.later.push(path.into()),
            _ => return Err(format!("`{line}` is in no section")),
        }
    }
    Ok(found)
}

/// The words of a text in lower case, each with its line from 1. Punctuation that parts phrases is a word of its own;
/// line breaks, the marks of comments and of code do not part any.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '\'' || c == '_' {
                word.extend(c.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                found.push((std::mem::take(&mut word), number));
            }
            if !c.is_whitespace() && !"#/*`\\".contains(c) {
                found.push((c.to_string(), number));
            }
        }
    }
    found
}

/// The old phrases of a text, each with its line.
fn old_words(phrases: &[Phrase], text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let begins_with = |at: usize, words: &[String]| {
        let rest = tokens.get(at..).unwrap_or_default();
        rest.len() >= words.len() && words.iter().zip(rest).all(|(word, (token, _))| word == token)
    };
    (0..tokens.len())
        .flat_map(|at| {
            let stands_here = move |phrase: &&Phrase| {
                let unless =
                    !phrase.unless.is_empty() && begins_with(at + phrase.words.len(), &phrase.unless);
                begins_with(at, &phrase.words) && !unless
            };
            phrases
                .iter()
                .filter(stands_here)
                .map(|phrase| (at, phrase.words.join(" ")))
                .collect::<Vec<_>>()
        })
        .map(|(at, phrase)| (tokens[at].1, phrase))
        .collect()
}

/// What of a Rust file people read, in its lines: everything else is blank.
fn readable(part: Part, text: &str) -> String {
    if part == Part::Text {
        return text.to_owned();
    }
    let code = match text.find("#[cfg(test)]\nmod tests {") {
        Some(tests) => &text[..tests],
        None => text,
    };
    let mut out = String::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let (taken, shown) = next_piece(part, rest, c);
        let piece = &rest[..taken];
        if shown {
            // a string is no part of the phrase before or after it
            out.push_str(&format!(";{piece};"));
        } else {
            out.extend(piece.chars().filter(|c| *c == '\n'));
            out.push(';');
        }
        rest = &rest[taken..];
    }
    without_escapes(&out)
}

/// Length in bytes of what begins here, and whether people read it.
fn next_piece(part: Part, rest: &str, first: char) -> (usize, bool) {
    let to = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("///") && part == Part::Help {
        // consecutive lines are one text
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            if !line.trim_start().starts_with("///") {
                break;
            }
            end += line.len();
        }
        return (end, true);
    }
    if rest.starts_with("//") {
        return (to(rest.find('\n')), false);
    }
    if let Some(raw) = rest.strip_prefix("r#\"") {
        return (to(raw.find("\"#").map(|end| end + 5)), true);
    }
    if rest.starts_with("'\"'") {
        return (3, false);
    }
    if rest.starts_with("'\\\"'") {
        return (4, false);
    }
    if first == '"' {
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        return (to(end.map(|(at, _)| at + 1)), true);
    }
    (first.len_utf8(), false)
}

/// `\n` in a literal parts no word from the next, and is none itself.
fn without_escapes(text: &str) -> String {
    ["\\n", "\\t", "\\x1b"]
        .iter()
        .fold(text.to_owned(), |text, escape| text.replace(escape, " "))
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a directory");
        let mut entries: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for entry in entries {
            files(&entry, found);
        }
    } else {
        found.push(path.to_owned());
    }
}

fn is_of_tests(path: &Path) -> bool {
    path.iter().any(|part| {
        matches!(
            part.to_str(),
            Some("tests" | "tests.rs" | "testing" | "testing.rs")
        )
    })
}

/// The old words of all places, as `file:line: phrase`; those of places that come later by themselves.
fn scan(list: &List) -> (Vec<String>, Vec<String>) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut faults, mut later) = (Vec::new(), Vec::new());
    for (part, place) in &list.places {
        let mut found = Vec::new();
        files(&top.join(place), &mut found);
        let is_rust =
            |path: &PathBuf| path.extension().is_some_and(|ending| ending == "rs") && !is_of_tests(path);
        found.retain(|path| *part == Part::Text || is_rust(path));
        assert!(!found.is_empty(), "{} has nothing to look at", place.display());
        for path in found {
            // the changelog of a package is history
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let path = path.strip_prefix(top).expect("a path of the repository");
            if path.ends_with("changelog") {
                continue;
            }
            let into = if list.later.iter().any(|place| path.starts_with(place)) {
                &mut later
            } else {
                &mut faults
            };
            for (line, phrase) in old_words(&list.phrases, &readable(*part, &text)) {
                into.push(format!("{}:{line}: \"{phrase}\"", path.display()));
            }
        }
    }
    for found in [&mut faults, &mut later] {
        found.sort();
        found.dedup();
    }
    (faults, later)
}

#[test]
fn what_people_read_has_the_operators_words() {
    let list = parse(LIST).expect("the list");
    assert!(list.phrases.len() > 40 && list.phrases.iter().all(|phrase| !phrase.words.is_empty()));
    let (faults, later) = scan(&list);
    assert!(
        faults.is_empty(),
        "old words (tests/house/old_words.txt):\n{}",
        faults.join("\n")
    );
    for place in &list.later {
        let prefix = place.display().to_string();
        assert!(
            later.iter().any(|fault| fault.starts_with(&prefix)),
            "{prefix} has no old words any more: remove it from [later] in tests/house/old_words.txt"
        );
    }
}

#[test]
fn old_words_are_found_wherever_people_read_them() {
    let list = parse("[phrases]\ntakes it out | of service\nin force\n").expect("a list");
    let found = |part, text: &str| old_words(&list.phrases, &readable(part, text));
    let one = |line, phrase: &str| vec![(line, phrase.to_owned())];
    assert_eq!(
        found(Part::Text, "a\nThe rules are In Force."),
        one(2, "in force")
    );
    assert_eq!(
        found(Part::Text, "# what is in\n# force now"),
        one(1, "in force"),
        "across lines"
    );
    assert_eq!(
        found(Part::Text, "the weight takes it out."),
        one(1, "takes it out")
    );
    for fine in [
        "takes it out of service",
        "come in; force it",
        "in forced labour",
        "within force",
    ] {
        assert_eq!(found(Part::Text, fine), [], "{fine}");
    }
    let code = "/// in force\nlet a = '\"'; // in force\nlet in_force = \"is \\\n    in\\nforce\";\nlet b = (in, force);\n";
    assert_eq!(found(Part::Strings, code), one(4, "in force"));
    assert_eq!(
        found(Part::Help, code),
        [(1, "in force".to_owned()), (4, "in force".to_owned())]
    );
    assert_eq!(found(Part::Strings, "f(\"in\", \"force\")"), [], "two strings");
    assert_eq!(
        found(Part::Strings, "r#\"in \" force, in force\"# + in + force"),
        one(1, "in force")
    );
    assert_eq!(
        found(Part::Strings, "#[cfg(test)]\nmod tests {\n\"in force\"}"),
        []
    );
    assert!(parse("[places]\neverything src").is_err());
    assert!(parse("in force").is_err());
}

#[test]
fn places_that_come_later_are_told_apart() {
    let list = "[phrases]\nload balancer\n[places]\ntext README.md\n";
    let (faults, later) = scan(&parse(list).expect("a list"));
    let title = "README.md:3: \"load balancer\"";
    assert!(
        faults.iter().any(|fault| fault == title) && later.is_empty(),
        "{faults:?}"
    );
    let excluded = format!("{list}[later]\nREADME.md\n");
    let (faults, later) = scan(&parse(&excluded).expect("a list"));
    assert!(faults.is_empty() && !later.is_empty(), "{later:?}");
}
