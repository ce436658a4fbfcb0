//! The fuzzers, which are built on demand only, keep up with what they are about.

use std::{collections::BTreeSet, fs, path::Path};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of an enum's variants.
fn variants<'a>(text: &'a str, of: &str) -> BTreeSet<&'a str> {
    let body = text.split_once(&format!("pub enum {of} {{\n"));
    let body = body
        .and_then(|(_, rest)| rest.split_once("\n}"))
        .map_or("", |(body, _)| body);
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .filter_map(|line| line.split(|c: char| !c.is_alphanumeric()).next())
        .collect()
}

/// As it is in a message.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[test]
fn every_verb_of_the_broker_is_judged_by_its_fuzzer_and_among_its_seeds() {
    let message = read("src/privilege/message.rs");
    let verbs = variants(&message, "Verb");
    assert!(verbs.contains("Bind") && verbs.contains("InEffect"), "{verbs:?}");
    let judge = read("tests/fuzz/broker/answers.rs");
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/broker");
    let seeds: String = fs::read_dir(seeds)
        .expect("the seeds")
        .map(|seed| fs::read_to_string(seed.expect("a seed").path()).expect("a text"))
        .collect();
    for verb in verbs {
        assert!(
            judge.contains(&format!("Verb::{verb}")),
            "tests/fuzz/broker/answers.rs does not say what {verb} may do"
        );
        assert!(
            seeds.contains(&format!("\"{}\"", snake_case(verb))),
            "no seed of tests/fuzz/seeds/broker has the verb {verb}"
        );
    }
}

#[test]
fn variants_are_found_with_what_they_hold_and_without() {
    let text = "/// Doc.\npub enum Verb {\n    /// One.\n    TakeOver(Path),\n    Serve,\n    Has {\n        /// It.\n        Inner: u8,\n    },\n}\n";
    assert_eq!(
        variants(text, "Verb"),
        BTreeSet::from(["Has", "Serve", "TakeOver"])
    );
    assert_eq!(snake_case("TakeOver"), "take_over");
}
