use std::{collections::BTreeSet, fs, path::PathBuf};

use regex::Regex;

use super::*;
use crate::base::{AccessReason, Alert, DatagramDrop, PacketReason, ServerTlsFailure, TerminationReason};

fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    (FILES.iter()).map(|file| {
        let text = std::str::from_utf8(file.bytes).expect("UTF-8");
        (file.name, text)
    })
}

fn has_end(name: &str, end: &str) -> bool {
    name.rsplit('.').next() == Some(end)
}

fn asked(name: &str, headers: &[(HeaderName, &str)]) -> Response {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    answer(name, &map)
}

fn header_of(response: &Response, name: &HeaderName) -> String {
    let value = response.headers().get(name).expect("the header");
    value.to_str().expect("a text").to_owned()
}

#[test]
fn every_file_of_the_page_is_served() {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/admin/page/files");
    let entries = fs::read_dir(place).expect("the files");
    let there: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    let served: BTreeSet<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
    assert_eq!(there, served);
    for file in FILES {
        assert_ne!(media(file.name), "application/octet-stream", "{}", file.name);
    }
}

#[test]
fn a_file_comes_with_the_policy_and_once_a_browser_has_it_not_again() {
    let first = asked(INDEX, &[]);
    assert_eq!(first.status(), 200);
    assert_eq!(header_of(&first, &header::CONTENT_SECURITY_POLICY), POLICY);
    assert_eq!(
        header_of(&first, &header::CONTENT_TYPE),
        "text/html; charset=utf-8"
    );
    let tag = header_of(&first, &header::ETAG);
    for value in [tag.clone(), format!("\"x\", W/{tag}")] {
        let again = asked(INDEX, &[(header::IF_NONE_MATCH, &value)]);
        assert_eq!(again.status(), 304, "{value}");
        assert_eq!(header_of(&again, &header::CONTENT_SECURITY_POLICY), POLICY);
    }
    assert_eq!(asked(INDEX, &[(header::IF_NONE_MATCH, "\"x\"")]).status(), 200);
    for strange in ["", "..", "../mod.rs", "passwd"] {
        assert_eq!(asked(strange, &[]).status(), 404, "{strange}");
    }
}

#[test]
fn nothing_in_the_page_asks_another_host_or_makes_a_text_an_element_or_a_script() {
    let sinks = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "createContextualFragment",
        "DOMParser",
        "srcdoc",
        "javascript:",
        "data:",
        "setTimeout(\"",
        "importScripts",
        "serviceWorker",
    ];
    // the name of a kind of element is no address
    let elsewhere = Regex::new(r"(https?:)?//[a-z0-9-]+\.[a-z]").expect("a pattern");
    for (name, text) in texts() {
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for sink in sinks {
            assert!(!text.contains(sink), "{name}: {sink}");
        }
        let found = elsewhere.find(&text).map(|found| found.as_str());
        assert_eq!(found, None, "{name}");
    }
}

#[test]
fn the_page_has_no_script_and_no_style_of_its_own_beside_its_files() {
    let inline =
        Regex::new(r#"(?i)<style|\sstyle\s*=|\son[a-z]+\s*=|<script(?:\s+[a-z]+(?:="[^"]*")?)*\s*>[^<]"#)
            .expect("a pattern");
    let file = Regex::new(r##"(?:src|href)="([^"#]*)""##).expect("a pattern");
    for (name, text) in texts().filter(|(name, _)| has_end(name, "html") || has_end(name, "svg")) {
        let found = inline.find(text).map(|found| found.as_str());
        assert_eq!(found, None, "{name}");
        for (_, [target]) in file.captures_iter(text).map(|found| found.extract()) {
            let known = target.is_empty()
                || target == "/"
                || (target.strip_prefix("/page/"))
                    .is_some_and(|name| FILES.iter().any(|file| file.name == name));
            assert!(known, "{name}: {target}");
        }
    }
}

#[test]
fn a_module_imports_files_of_the_page() {
    let import = Regex::new(r#"(?m)^import\b[^;"']*["']([^"']+)["'];$"#).expect("a pattern");
    for (name, text) in texts().filter(|(name, _)| has_end(name, "js")) {
        for (_, [target]) in import.captures_iter(text).map(|found| found.extract()) {
            let file = target.trim_start_matches("./").trim_start_matches("/page/");
            assert!(
                FILES.iter().any(|known| known.name == file),
                "{name} imports {target}"
            );
        }
    }
}

/// Paths of the API in a module, what is filled in as `{}`.
fn paths(text: &str) -> Vec<String> {
    let made = Regex::new(r#"\bpath\(("[^()]*)\)"#).expect("a pattern");
    let part = |part: &str| match part.trim().strip_prefix('"') {
        Some(word) => word.trim_end_matches('"').to_owned(),
        None => "{}".to_owned(),
    };
    let made = made.captures_iter(text).map(|found| found.extract());
    let made = made.map(|(_, [parts])| {
        let parts: Vec<_> = parts.split(',').map(part).collect();
        format!("/v1/{}", parts.join("/"))
    });
    let mut all = written(text);
    all.extend(made);
    all
}

/// Those that are written out.
fn written(text: &str) -> Vec<String> {
    let path = Regex::new(r#"[`"'](/(?:v1|healthz|readyz|metrics)[^`"'\s]*)[`"']"#).expect("a pattern");
    let filled = Regex::new(r"\$\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}").expect("a pattern");
    let found = path.captures_iter(text).map(|found| found.extract());
    found
        .map(|(_, [path])| {
            let path = filled.replace_all(path, "{}");
            path.split(['?', '#']).next().unwrap_or_default().to_owned()
        })
        // the one that makes others of their parts
        .filter(|path| !path.contains("parts.map("))
        .collect()
}

#[test]
fn every_path_that_the_page_asks_is_one_of_the_api() {
    let known: Vec<String> = crate::admin::api::paths();
    let fits = |path: &str| {
        let parts: Vec<_> = path.split('/').collect();
        known.iter().any(|known| {
            let known: Vec<_> = known.split('/').collect();
            known.len() == parts.len()
                && (known.iter().zip(&parts)).all(|(known, part)| {
                    // what follows a part is a query that is built elsewhere
                    known.starts_with('{') || known == part || Some(*known) == part.strip_suffix("{}")
                })
        })
    };
    for (name, text) in texts().filter(|(name, _)| has_end(name, "js")) {
        for path in paths(text) {
            assert!(fits(&path), "{name} asks for {path}");
        }
    }
}

/// A set of labels in `words.js`: the text between its braces.
fn words_of(set: &str) -> &'static str {
    let (_, text) = texts().find(|(name, _)| *name == "words.js").expect("the words");
    let (_, after) = text.split_once(&format!("export const {set} = {{")).expect(set);
    after.split_once("\n};").expect("its end").0
}

/// Whether a line begins an entry: its label and a colon.
fn is_entry(line: &str) -> bool {
    let label = line.trim_start().split_once(':').map(|(label, _)| label);
    label.is_some_and(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

#[test]
fn a_label_means_on_the_page_what_it_means_everywhere() {
    let check = |set: &str, all: Vec<(&str, &str)>| {
        let text = words_of(set);
        for (label, sentence) in &all {
            let quoted = match sentence.contains('"') {
                true => format!("'{}'", sentence.replace('\'', "\\'")),
                false => format!("\"{sentence}\""),
            };
            let unwrapped = text.replace("\n    ", " ");
            assert!(
                unwrapped.contains(&format!("{label}: {quoted},")),
                "{set}: {label}: {sentence}"
            );
        }
        assert_eq!(
            text.lines().filter(|line| is_entry(line)).count(),
            all.len(),
            "{set}"
        );
    };
    check(
        "ENDINGS",
        TerminationReason::ALL
            .iter()
            .map(|it| (it.label(), it.sentence()))
            .collect(),
    );
    check(
        "REFUSALS",
        AccessReason::ALL
            .iter()
            .map(|it| (it.label(), it.sentence()))
            .collect(),
    );
    check(
        "DATAGRAMS",
        DatagramDrop::ALL
            .iter()
            .map(|it| (it.label(), it.sentence()))
            .collect(),
    );
    check(
        "TLS_FAILURES",
        ServerTlsFailure::ALL
            .iter()
            .map(|it| (it.label(), it.sentence()))
            .collect(),
    );
    check(
        "ALERTS",
        Alert::ALL.iter().map(|it| (it.label(), it.sentence())).collect(),
    );
    check(
        "VERDICTS",
        PacketReason::ALL
            .iter()
            .map(|it| (it.label(), it.sentence()))
            .collect(),
    );
}
