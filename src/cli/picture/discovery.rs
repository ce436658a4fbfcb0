//! What is said of a source of servers.

use crate::{
    admin::views::{Discovery, DiscoveryProblem},
    cli::text::{Cell, Style, time},
};

/// How it is, in the line of its backend; marked if an operator should look at it.
pub fn note(source: &Discovery) -> Cell {
    let servers = match source.servers {
        1 => "1 server".to_owned(),
        servers => format!("{servers} servers"),
    };
    match &source.problem {
        Some(DiscoveryProblem {
            held, text, seconds, ..
        }) => {
            let (kind, since) = (&source.kind, time(*seconds));
            let text = match held {
                true => format!("{kind}: keeps {servers} for {since}: {text}"),
                false => format!("{kind}: {servers}, not read for {since}: {text}"),
            };
            Cell::new(text, Style::Bad)
        }
        None => {
            let read = source.answered_seconds.map_or_else(
                || "not read yet".to_owned(),
                |seconds| format!("read {} ago", time(seconds)),
            );
            let (left_out, style) = match source.left_out {
                0 => (String::new(), Style::Plain),
                count => (format!(", {count} left out"), Style::Notice),
            };
            Cell::new(format!("{}: {servers}{left_out}, {read}", source.kind), style)
        }
    }
}

/// What is wrong with a backend, and with that how its source is, if it has one.
pub fn beside(wrong: &str, source: Option<&Discovery>) -> Cell {
    let text = source.map_or_else(
        || wrong.to_owned(),
        |source| format!("{wrong}; {}", note(source).text()),
    );
    Cell::new(text, Style::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiscoveryKind;

    #[test]
    fn a_source_says_how_many_servers_and_since_when_and_what_is_wrong() {
        let mut source = Discovery {
            kind: DiscoveryKind::File.into(),
            source: "file /w".into(),
            servers: 12,
            answered_seconds: Some(4.0),
            left_out: 0,
            duplicates: 0,
            problem: None,
        };
        let text = |source: &Discovery| note(source).text().to_owned();
        assert_eq!(text(&source), "file: 12 servers, read 4s ago");
        (source.left_out, source.servers) = (2, 1);
        assert_eq!(text(&source), "file: 1 server, 2 left out, read 4s ago");
        source.answered_seconds = None;
        source.left_out = 0;
        assert_eq!(text(&source), "file: 1 server, not read yet");
        source.problem = Some(DiscoveryProblem {
            held: false,
            reason: "malformed".into(),
            text: "line 3: `x` has no port".into(),
            seconds: 61.0,
        });
        assert_eq!(
            text(&source),
            "file: 1 server, not read for 1m 1s: line 3: `x` has no port"
        );
        source.problem.as_mut().unwrap().held = true;
        assert_eq!(
            text(&source),
            "file: keeps 1 server for 1m 1s: line 3: `x` has no port"
        );
    }
}
