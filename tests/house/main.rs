//! The house keeps its shape: imports point down, `unsafe` stays in `sys`, files stay short, the top level stays clean.

mod circles;
mod fuzzed;
mod old_words;
mod readme;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Rooms from the top down. A room may import any below its floor, and none beside it.
const FLOORS: &[&[&str]] = &[
    &["main", "lib", "build"],
    &["cli"],
    &["daemon"],
    // I/O: these do not know each other
    &[
        "proxy",
        "engine",
        "health",
        "discovery",
        "acme",
        "admin",
        "firewall",
        "backend_setup",
        "privilege",
    ],
    // low I/O
    &["client"],
    &["tls"],
    &["sys"],
    // pure: no I/O, no clock, no randomness
    &["flow"],
    &["snapshot"],
    &["pools"],
    &["balance", "packet", "preamble", "import"],
    &["config"],
    &["access"],
    &["base"],
];

/// Pure rooms, which must not touch the system at all.
const PURE: &[&str] = &[
    "flow", "snapshot", "pools", "balance", "packet", "preamble", "import", "config", "access", "base",
];

/// Longest file in lines.
const MAX_LINES: usize = 500;

/// Files that are still longer, and how long: they may only shrink.
const TOO_LONG: &[(&str, usize)] = &[("src/engine/raw/filter/tests.rs", 531)];

/// What the top level of the repository may hold, besides dot files.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "src",
    "packaging",
    "systemd",
    "debian",
    "configs",
    "tests",
];

/// The room of a file under `src`.
fn room(path: &Path) -> String {
    let first = path.components().next().expect("a path with a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Rooms that a source text imports or names: `crate::room…`, also in `use crate::{room, other::{…}}`, and `super`
/// paths that leave a room's own file tree do not exist in this crate's style.
fn imports(text: &str) -> BTreeSet<String> {
    let code = without_comments(text);
    let mut rooms = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        let is_path_start = !code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if is_path_start {
            first_segments(&code[start + "crate::".len()..], &mut rooms);
        }
    }
    rooms
}

/// The first segment of each path of a use tree: `a::b` is a, `{a, b::{c, d}}` are a and b.
fn first_segments(tree: &str, rooms: &mut BTreeSet<String>) {
    let Some(group) = tree.strip_prefix('{') else {
        rooms.insert(identifier(tree));
        return;
    };
    let (mut depth, mut at_start) = (0, true);
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if c.is_whitespace() => {}
            _ if at_start => {
                rooms.insert(identifier(&group[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The text with line comments (doc comments with links among them) blanked.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.find("//").map_or(line, |start| &line[..start]))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What is wrong with the imports of one file.
fn bad_edges(path: &Path, text: &str) -> Vec<String> {
    let from = room(path);
    let Some(own) = floor(&from) else {
        return vec![format!(
            "{}: {from} is no room of the house: add it to FLOORS",
            path.display()
        )];
    };
    imports(text)
        .into_iter()
        .filter(|to| *to != from)
        .filter_map(|to| match floor(&to) {
            // an item of lib.rs itself, not a room
            None => None,
            Some(other) if other > own => None,
            Some(other) => {
                let direction = if other == own { "sideways" } else { "up" };
                Some(format!(
                    "{}: imports {to}, which points {direction}",
                    path.display()
                ))
            }
        })
        .collect()
}

/// Words by which a pure room would reach for the system.
fn impurities(path: &Path, text: &str) -> Vec<String> {
    const FORBIDDEN: &[&str] = &[
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::env",
        "std::thread",
        "process::Command",
        "process::exit",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "RandomState",
        "libc::",
        "nix::",
        "socket2::",
    ];
    let is_test = |part: &std::ffi::OsStr| {
        ["tests", "tests.rs", "testing.rs"]
            .iter()
            .any(|name| part == *name)
    };
    if path.iter().any(is_test) || !PURE.contains(&room(path).as_str()) {
        return Vec::new();
    }
    let code = without_comments(text);
    let product = code.split("#[cfg(test)]").next().unwrap_or_default();
    FORBIDDEN
        .iter()
        .filter(|word| product.contains(**word))
        .map(|word| format!("{}: pure code uses {word}", path.display()))
        .collect()
}

/// Where `unsafe` may stand: in the product, and where its tests make the calls of an attacker.
const UNSAFE: [&str; 2] = ["src/sys", "tests/privilege/attempts.rs"];

/// `unsafe` where it may not stand, or an `allow` that would permit it.
fn stray_unsafe(path: &Path, text: &str) -> Option<String> {
    let code = without_comments(text);
    let found = code
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| word == "unsafe");
    let permitted = code.contains("allow(unsafe_code") || code.contains("expect(unsafe_code");
    ((found || permitted) && !UNSAFE.iter().any(|place| path.starts_with(place)))
        .then(|| format!("{}: unsafe belongs into {}", path.display(), UNSAFE[0]))
}

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(&root).expect("under the root").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no source files under {dir}");
    found
}

#[test]
fn imports_point_down() {
    let bad: Vec<_> = sources("src")
        .iter()
        .flat_map(|(path, text)| bad_edges(path, text))
        .collect();
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn pure_code_has_no_clock_no_io_and_no_randomness() {
    let bad: Vec<_> = sources("src")
        .iter()
        .flat_map(|(path, text)| impurities(path, text))
        .collect();
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

/// All of the project's Rust but this house, whose text speaks of what it forbids.
fn code() -> impl Iterator<Item = (PathBuf, String)> {
    ["src", "tests"].into_iter().flat_map(|dir| {
        let under = |(path, text): (PathBuf, String)| (Path::new(dir).join(path), text);
        sources(dir)
            .into_iter()
            .map(under)
            .filter(|(path, _)| !path.starts_with("tests/house"))
    })
}

#[test]
fn unsafe_code_is_only_where_it_may_be() {
    let bad: Vec<_> = code()
        .filter_map(|(path, text)| stray_unsafe(&path, &text))
        .collect();
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for (path, text) in code() {
        let blocks = without_comments(&text).matches("unsafe {").count();
        let reasons = text.matches("SAFETY:").count();
        assert!(
            reasons >= blocks,
            "{}: {blocks} unsafe blocks, {reasons} SAFETY comments",
            path.display()
        );
    }
}

#[test]
fn files_are_short_enough_to_read() {
    let mut known: BTreeMap<&str, usize> = TOO_LONG.iter().copied().collect();
    let mut wrong = Vec::new();
    for dir in ["src", "tests"] {
        for (path, text) in sources(dir) {
            let (path, lines) = (format!("{dir}/{}", path.display()), text.lines().count());
            wrong.extend(length_fault(&path, lines, known.remove(path.as_str())));
        }
    }
    wrong.extend(known.keys().map(|path| format!("{path} is gone: strike it off")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is wrong with a file's length; `known` is its length if it is among those that are too long.
fn length_fault(path: &str, lines: usize, known: Option<usize>) -> Option<String> {
    match known {
        None if lines > MAX_LINES => Some(format!("{path}: {lines} lines, {MAX_LINES} at most")),
        Some(_) if lines <= MAX_LINES => Some(format!("{path} is short enough: strike it off")),
        Some(known) if lines > known => Some(format!("{path} has grown from {known} to {lines} lines")),
        Some(known) if lines < known => Some(format!("{path} has {lines} lines: say so instead of {known}")),
        _ => None,
    }
}

#[test]
fn the_top_level_holds_what_belongs_there_and_nothing_else() {
    let tracked = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("git");
    let listing = String::from_utf8(tracked.stdout).expect("names in UTF-8");
    let top: BTreeSet<&str> = listing
        .lines()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let strange: Vec<_> = top.iter().filter(|name| !TOP_LEVEL.contains(name)).collect();
    assert!(strange.is_empty(), "not of the top level: {strange:?}");
    for wanted in ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "src", "tests"] {
        assert!(top.contains(wanted), "{wanted} is missing");
    }
}

mod of_the_test_itself {
    use super::*;

    fn edges(path: &str, text: &str) -> String {
        bad_edges(Path::new(path), text).join("\n")
    }

    #[test]
    fn an_import_that_points_up_is_found() {
        assert_eq!(
            edges("balance/maglev.rs", "use crate::snapshot::Snapshot;"),
            "balance/maglev.rs: imports snapshot, which points up"
        );
        assert_eq!(
            edges("sys/splice.rs", "fn f() { crate::proxy::relay() }"),
            "sys/splice.rs: imports proxy, which points up"
        );
        assert_eq!(
            edges("base/name.rs", "use crate::config;"),
            "base/name.rs: imports config, which points up"
        );
    }

    #[test]
    fn an_import_that_points_sideways_is_found() {
        let text = "use crate::{\n    base::{self, Name},\n    health::Checker,\n    sys,\n};";
        assert_eq!(
            edges("proxy/mod.rs", text),
            "proxy/mod.rs: imports health, which points sideways"
        );
        assert_eq!(
            edges("privilege/mod.rs", "use crate::admin;"),
            "privilege/mod.rs: imports admin, which points sideways"
        );
    }

    #[test]
    fn imports_that_point_down_and_links_in_comments_are_fine() {
        let text = "//! See [`crate::daemon`].\nuse crate::{base::Name, config::{Config, Mode}, snapshot};\nuse crate::sys;";
        assert_eq!(edges("proxy/relay.rs", text), "");
        assert_eq!(
            edges("daemon/mod.rs", "use crate::{admin, health, privilege, proxy};"),
            ""
        );
        assert_eq!(edges("proxy/relay.rs", "use crate::proxy::limits;"), "");
    }

    #[test]
    fn a_new_room_must_be_given_a_floor() {
        assert!(edges("cellar/mod.rs", "").contains("no room"));
    }

    #[test]
    fn a_clock_in_pure_code_is_found_and_one_in_its_tests_is_not() {
        let path = Path::new("balance/random.rs");
        assert_eq!(impurities(path, "let now = Instant::now();").len(), 1);
        assert!(
            impurities(
                path,
                "fn f() {}\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }"
            )
            .is_empty()
        );
        assert!(impurities(Path::new("health/mod.rs"), "Instant::now()").is_empty());
        assert!(impurities(Path::new("pools/tests/random.rs"), "Instant::now()").is_empty());
    }

    #[test]
    fn a_file_may_not_be_too_long_and_one_that_is_may_only_shrink() {
        assert_eq!(length_fault("f", 500, None), None);
        assert_eq!(length_fault("f", 538, Some(538)), None);
        let fault = |lines, known| length_fault("f", lines, known).unwrap_or_default();
        assert_eq!(fault(501, None), "f: 501 lines, 500 at most");
        assert_eq!(fault(539, Some(538)), "f has grown from 538 to 539 lines");
        assert_eq!(fault(537, Some(538)), "f has 537 lines: say so instead of 538");
        assert_eq!(fault(500, Some(538)), "f is short enough: strike it off");
    }

    #[test]
    fn stray_unsafe_is_found() {
        assert!(stray_unsafe(Path::new("src/proxy/relay.rs"), "unsafe { f() }").is_some());
        assert!(stray_unsafe(Path::new("src/proxy/relay.rs"), "#![allow(unsafe_code)]").is_some());
        assert!(stray_unsafe(Path::new("src/proxy/relay.rs"), "// unsafe\nfn f() {}").is_none());
        assert!(stray_unsafe(Path::new("tests/privilege/sandbox.rs"), "unsafe { f() }").is_some());
        assert!(stray_unsafe(Path::new("src/sys/mod.rs"), "unsafe { f() }").is_none());
    }
}
