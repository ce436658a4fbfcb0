//! What came of a configuration that was to take effect.

use std::io::Write;

use hyper::StatusCode;

use super::{client::Response, outcome::Failure, text::harmless};
use crate::{
    admin::views::{Problem, Reloaded},
    base::exit,
};

/// Prints what has changed.
pub fn tell(reloaded: &Reloaded) -> Result<(), Failure> {
    let (out, err) = report(reloaded);
    // warnings to stderr, so that what changed can be read by programs
    std::io::stderr().write_all(err.as_bytes())?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(out.as_bytes())?;
    Ok(stdout.flush()?)
}

/// What came of a reload or of a text that was to be applied.
///
/// # Errors
/// Nothing was changed.
pub fn interpret(answer: &Response) -> Result<Reloaded, Failure> {
    let exit = match answer.status {
        StatusCode::UNPROCESSABLE_ENTITY => Some(exit::CONFIG),
        StatusCode::INTERNAL_SERVER_ERROR => Some(exit::OS_ERROR),
        _ => None,
    };
    if let Some(exit) = exit
        && let Ok(failed) = serde_json::from_slice::<Problem>(&answer.body)
    {
        let text = harmless(failed.message.trim_end()).into_owned();
        return Err(Failure::new(
            exit,
            format!("reload failed, nothing was changed\n{text}"),
        ));
    }
    answer.parse()
}

/// What goes to stdout and what to stderr.
fn report(reloaded: &Reloaded) -> (String, String) {
    let mut out = if reloaded.changes.is_empty() {
        "reloaded: nothing changed\n".to_owned()
    } else {
        let lines: String = reloaded
            .changes
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect();
        format!("reloaded:\n{lines}")
    };
    if reloaded.cut > 0 {
        out.push_str(&format!("cut {} connection(s)\n", reloaded.cut));
    }
    if !reloaded.needs_restart.is_empty() {
        let keys = reloaded.needs_restart.join(", ");
        out.push_str(&format!("needs a restart to take effect: {keys}\n"));
    }
    let warnings = match harmless(reloaded.warnings.trim_end()) {
        none if none.is_empty() => String::new(),
        some => format!("{some}\n"),
    };
    (harmless(&out).into_owned(), warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Bytes;

    fn answer(status: StatusCode, body: &impl serde::Serialize) -> Response {
        Response {
            status,
            tag: None,
            body: Bytes::from(serde_json::to_vec(body).expect("JSON")),
        }
    }

    #[test]
    fn changes_are_printed_a_line_each() {
        let reloaded = Reloaded {
            config_generation: 2,
            changes: vec![
                "backend web: server a: weight 1 -> 3".into(),
                "frontend mail: added".into(),
            ],
            needs_restart: vec!["global.workers".into()],
            cut: 3,
            backends: vec![],
            warnings: "convey.toml:1:1: warning\n".into(),
        };
        assert_eq!(
            interpret(&answer(StatusCode::OK, &reloaded)),
            Ok(reloaded.clone())
        );
        let (out, err) = report(&reloaded);
        assert_eq!(
            out,
            "reloaded:\n  backend web: server a: weight 1 -> 3\n  frontend mail: added\ncut 3 connection(s)\nneeds a restart to take effect: \
             global.workers\n"
        );
        assert_eq!(err, "convey.toml:1:1: warning\n");
        let (out, _) = report(&Reloaded {
            changes: vec![],
            needs_restart: vec![],
            cut: 0,
            ..reloaded
        });
        assert_eq!(out, "reloaded: nothing changed\n");
    }

    #[test]
    fn a_bad_configuration_is_78_and_a_system_that_refuses_71() {
        for (status, exit) in [
            (StatusCode::UNPROCESSABLE_ENTITY, exit::CONFIG),
            (StatusCode::INTERNAL_SERVER_ERROR, exit::OS_ERROR),
        ] {
            let failed = Problem::new(status, "convey.toml:3:1: unknown key\n");
            assert_eq!(
                interpret(&answer(status, &failed)),
                Err(Failure::new(
                    exit,
                    "reload failed, nothing was changed\nconvey.toml:3:1: unknown key"
                ))
            );
        }
    }

    #[test]
    fn a_daemon_that_is_busy_is_69() {
        let busy = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy");
        assert_eq!(
            interpret(&answer(StatusCode::SERVICE_UNAVAILABLE, &busy)),
            Err(Failure::new(exit::UNAVAILABLE, "busy"))
        );
    }
}
