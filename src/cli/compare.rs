//! What a text would change of what the running convey does.

use hyper::Method;

use super::{
    client::{Asked, Client},
    outcome::Failure,
    text::harmless,
};
use crate::{
    admin::views::{ConfigDiff, Finding},
    base::exit,
};

/// Asks the running convey.
///
/// # Errors
/// The text has errors; all of them are told.
pub fn compare(client: &Client, text: Vec<u8>) -> Result<ConfigDiff, Failure> {
    let answer = client.send(Asked::of(Method::POST, "/v1/config/diff").with_toml(text))?;
    answer.parse().map_err(|failure| match failure {
        Failure::Told {
            exit: exit::CONFIG,
            message,
        } => Failure::new(
            exit::CONFIG,
            format!("the configuration has errors\n{}", harmless(&message)),
        ),
        other => other,
    })
}

/// What is wrong with a text that can be used, a line each.
pub fn warnings(plan: &ConfigDiff) -> String {
    plan.warnings.iter().map(in_a_line).collect()
}

/// A finding with its place.
pub fn in_a_line(finding: &Finding) -> String {
    let Finding {
        severity,
        line,
        column,
        message,
        ..
    } = finding;
    let place = match line {
        0 => String::new(),
        line => format!("{line}:{column}: "),
    };
    let help = finding
        .help
        .as_ref()
        .map_or_else(String::new, |help| format!(" ({help})"));
    harmless(&format!("{place}{severity}: {message}{help}\n")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_its_place_and_what_would_be_right() {
        let finding = Finding {
            severity: "warning".into(),
            line: 3,
            column: 7,
            path: "global.x".into(),
            message: "odd".into(),
            help: Some("even".into()),
        };
        assert_eq!(in_a_line(&finding), "3:7: warning: odd (even)\n");
        let whole = Finding {
            line: 0,
            help: None,
            ..finding
        };
        assert_eq!(in_a_line(&whole), "warning: odd\n");
    }
}
