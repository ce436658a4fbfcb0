//! What README.md says is true: its configurations are valid, its commands exist.

use std::{fs, path::Path, process::Command};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md")
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str())
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect()
}

#[test]
fn every_configuration_is_valid() {
    let text = readme();
    let configurations = blocks(&text, "toml");
    assert!(configurations.len() >= 2, "the README shows configurations");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for configuration in configurations {
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
        .chain(blocks(text, "sh").into_iter().flat_map(str::lines))
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
