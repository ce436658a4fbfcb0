//! Words of other tools for what Convey calls otherwise: they work, and a tip names Convey's own.

use std::ffi::OsString;

/// Options whose value is an argument of its own.
const WITH_VALUE: [&str; 2] = ["-c", "--config"];

/// The command line in Convey's words, and the tip if it was not.
pub fn translate(mut arguments: Vec<OsString>) -> (Vec<OsString>, Option<String>) {
    let Some(at) = subcommand(&arguments) else {
        return (arguments, None);
    };
    let word = |at: usize| arguments.get(at).and_then(|argument| argument.to_str());
    let next = word(at + 1);
    let (given, words): (_, &[&str]) = match (word(at), next) {
        (Some("run" | "start"), _) => (1, &[]),
        (Some("test" | "validate"), _) => (1, &["check"]),
        (Some("list" | "show"), Some("connections")) => (2, &["connections"]),
        (Some("show"), Some("firewall")) => (2, &["firewall", "show"]),
        (Some("list" | "show"), Some("status")) => (2, &["status"]),
        (Some("list" | "show"), _) => (1, &["status"]),
        // as HAProxy's runtime commands
        (Some("enable"), Some("server")) => (2, &["server", "ready"]),
        (Some("disable"), Some("server")) => (2, &["server", "maintenance"]),
        (Some("enable"), _) => (1, &["server", "ready"]),
        (Some("disable"), _) => (1, &["server", "maintenance"]),
        _ => return (arguments, None),
    };
    let said: Vec<String> = (arguments.iter().skip(at).take(given))
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let said = said.join(" ");
    let tip = match words {
        [] => format!(
            "tip: `convey {said}` is plain `convey`: it runs in the foreground; `systemctl start convey` starts the service"
        ),
        words => format!("tip: `convey {said}` is `convey {}`", words.join(" ")),
    };
    arguments.splice(at..at + given, words.iter().map(OsString::from));
    (arguments, Some(tip))
}

/// Where the first argument stands that is neither an option nor the value of one.
fn subcommand(arguments: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        let argument = arguments.get(at)?.to_string_lossy();
        if WITH_VALUE.contains(&argument.as_ref()) {
            at += 2;
        } else if argument == "--" {
            return None;
        } else if argument.starts_with('-') {
            at += 1;
        } else {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> (String, Option<String>) {
        let (arguments, tip) = translate(line.split(' ').map(OsString::from).collect());
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        (words.join(" "), tip)
    }

    #[test]
    fn the_words_of_other_tools_become_ours_with_a_tip() {
        for (line, ours) in [
            ("convey run", "convey"),
            ("convey start -c a.toml", "convey -c a.toml"),
            ("convey -c run start", "convey -c run"),
            ("convey test a.toml", "convey check a.toml"),
            ("convey --config=x validate", "convey --config=x check"),
            ("convey list", "convey status"),
            ("convey show status --json", "convey status --json"),
            ("convey show connections", "convey connections"),
            ("convey show firewall", "convey firewall show"),
            ("convey enable web/a", "convey server ready web/a"),
            ("convey disable server web/a", "convey server maintenance web/a"),
        ] {
            let (found, tip) = translated(line);
            assert_eq!(found, ours);
            let tip = tip.unwrap_or_default();
            assert!(tip.starts_with("tip: `convey "), "{line}: {tip}");
        }
        let (_, tip) = translated("convey disable server web/a");
        assert_eq!(
            tip.as_deref(),
            Some("tip: `convey disable server` is `convey server maintenance`")
        );
    }

    #[test]
    fn our_own_words_stay() {
        for line in [
            "convey",
            "convey check test",
            "convey status run",
            "convey -c start",
            "convey server drain web/start",
            "convey -p",
            "convey -- run",
        ] {
            assert_eq!(translated(line), (line.to_owned(), None));
        }
    }
}
