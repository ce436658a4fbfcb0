//! What README.md says is true: its configurations are valid, its commands exist.

use std::{fs, path::Path, process::Command};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md")
}

/// The fenced blocks of a language: what follows it says of what kind they are.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<(&'a str, &'a str)> {
    // outside, inside, outside, …
    let inside = text.split("```").skip(1).step_by(2);
    inside
        .filter_map(|block| block.split_once('\n'))
        .filter_map(|(fence, block)| match fence.strip_prefix(language) {
            Some(kind) if kind.is_empty() || kind.starts_with(' ') => Some((kind.trim(), block)),
            _ => None,
        })
        .collect()
}

#[test]
fn every_configuration_is_valid() {
    let text = readme();
    let configurations = blocks(&text, "toml");
    assert!(configurations.len() >= 2, "the README shows configurations");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (_, configuration) in configurations {
        let path = dir.path().join("convey.toml");
        fs::write(&path, configuration).expect("the configuration");
        let output = Command::new(env!("CARGO_BIN_EXE_convey"))
            .arg("check")
            .arg("--config")
            .arg(&path)
            .output()
            .expect("convey check");
        assert!(
            output.status.success(),
            "{configuration}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The subcommands that a text names as `convey WORD …`, in code.
fn commands(text: &str) -> Vec<Vec<String>> {
    let code = text.split('`').skip(1).step_by(2);
    let mut commands: Vec<Vec<String>> = code
        .chain(
            blocks(text, "sh")
                .into_iter()
                .flat_map(|(_, block)| block.lines()),
        )
        .filter_map(|line| line.trim().trim_start_matches("sudo ").strip_prefix("convey "))
        .map(|rest| {
            let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
            rest.split_whitespace()
                .take_while(is_word)
                .take(2)
                .map(str::to_owned)
                .collect()
        })
        .filter(|words: &Vec<String>| !words.is_empty())
        .collect();
    commands.sort();
    commands.dedup();
    commands
}

#[test]
fn every_command_exists() {
    let commands = commands(&readme());
    for expected in ["check", "status", "reload", "connections"] {
        assert!(
            commands.iter().any(|words| words[0] == expected),
            "{expected} is in the README"
        );
    }
    for words in commands {
        // an argument, such as the shell of `completions`, is no subcommand
        let words = if words[0] == "server" {
            &words[..]
        } else {
            &words[..1]
        };
        let output = Command::new(env!("CARGO_BIN_EXE_convey"))
            .args(words)
            .arg("--help")
            .output()
            .expect("convey --help");
        assert!(
            output.status.success(),
            "convey {} does not exist",
            words.join(" ")
        );
    }
}

#[test]
fn every_path_exists() {
    let text = readme();
    let mut checked = 0;
    for path in text.split('`').skip(1).step_by(2) {
        if ["tests/", "packaging/", "configs/", "src/"]
            .iter()
            .any(|dir| path.starts_with(dir))
        {
            let path = path.split_whitespace().next().unwrap_or_default();
            assert!(
                Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(),
                "{path} does not exist"
            );
            checked += 1;
        }
    }
    assert!(checked >= 4, "the README says where to look");
}

/// tests/vm/readme.sh types every block on a machine with the service, but for those of a checkout: these are what a run of
/// packaging/test consists of, on a fresh clone.
#[test]
fn what_is_typed_in_a_checkout_is_what_the_tests_run() {
    let text = readme();
    let run = ["packaging/test", "packaging/quickstart", "packaging/common.sh"]
        .map(|file| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a script"))
        .concat();
    let mut typed = 0;
    for (kind, block) in blocks(&text, "sh") {
        assert!(["", "checkout"].contains(&kind), "{kind}");
        if kind.is_empty() {
            continue;
        }
        for line in block.lines() {
            let is_run = match line.trim_start_matches("sudo ") {
                // how one comes to a checkout, and the test itself
                "git clone <this repository> convey && cd convey" | "packaging/test" => true,
                "cargo build --release --bin convey" => run.contains("packaging/deb"),
                other => run.contains(other),
            };
            assert!(is_run, "no test runs `{line}`");
            typed += 1;
        }
    }
    assert!(typed >= 4);
}
