//! Waiting for what a change of the configuration has come to, and going back.

mod back;

use std::{
    io::Write as _,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    args::SettleArgs,
    client::{Client, percent_encode},
    outcome::{CommandResult, Failure},
    progress::{Progress, STEP},
    text::harmless,
};
use crate::{
    admin::views::{Backend, Reloaded, Server},
    base::{BackendName, CheckOutcome, ServerState, exit},
};
pub use back::Before;

/// Waits for the servers of the backends that a change concerns, if that is asked for, and says how they are.
pub fn settle(
    client: &Client,
    args: SettleArgs,
    reloaded: &Reloaded,
    before: Option<Before>,
) -> CommandResult {
    let Some(limit) = args.wait else {
        return Ok(exit::OK);
    };
    let waited = wait(client, limit, &reloaded.backends)?;
    let mut out = std::io::stdout().lock();
    for (name, backend) in &waited.backends {
        out.write_all(harmless(&report(name, backend, waited.took)).as_bytes())?;
    }
    out.flush()?;
    if waited.all_serve() {
        return Ok(exit::OK);
    }
    if let Some(before) = before {
        let mut down = waited
            .backends
            .iter()
            .filter(|(_, backend)| backend.eligible == 0);
        let said = match down.all(|(name, _)| before.was_idle(name)) {
            true => "not rolled back: these backends had no eligible server before either".to_owned(),
            false => before.go_back(client, reloaded)?,
        };
        writeln!(out, "{}", harmless(&said))?;
        out.flush()?;
    }
    Ok(exit::UNAVAILABLE)
}

/// Says why there may be nothing to wait for although somebody has edited the file.
pub fn nothing_to_wait_for(client: &Client) -> Result<(), Failure> {
    let resolved: serde_json::Value = client.get("/v1/config/resolved")?.parse()?;
    if resolved["global"]["watch_config"] == true {
        writeln!(
            std::io::stderr(),
            "note: with watch_config = true convey applies an edited file by itself, within a second; to wait for what comes \
             of it and to go back, use `convey config edit --wait --rollback`, or set watch_config = false"
        )?;
    }
    Ok(())
}

/// What was waited for.
#[derive(Debug)]
struct Waited {
    backends: Vec<(BackendName, Backend)>,
    took: Duration,
}

impl Waited {
    fn all_serve(&self) -> bool {
        self.backends.iter().all(|(_, backend)| backend.eligible > 0)
    }
}

/// Until every server is known to be up, or the time is over.
fn wait(client: &Client, limit: Duration, names: &[BackendName]) -> Result<Waited, Failure> {
    let started = Instant::now();
    let mut progress = Progress::start();
    loop {
        // before it is asked: no check of before counts
        let took = started.elapsed();
        let mut backends = Vec::new();
        for name in names {
            let target = format!("/v1/backends/{}", percent_encode(name.as_str()));
            backends.push((name.clone(), client.get(&target)?.parse::<Backend>()?));
        }
        let is_done = backends.iter().all(|(_, backend)| is_settled(backend, took));
        let waited = Waited { backends, took };
        if is_done || took >= limit {
            progress.end();
            return Ok(waited);
        }
        progress.tell(|| {
            let mut waiting = waited.backends.iter();
            waiting
                .find(|(_, backend)| !is_settled(backend, took))
                .map_or_else(String::new, |(name, backend)| {
                    format!("backend {name}: {}, waiting", up(backend))
                })
        });
        sleep(STEP);
    }
}

/// Whether all of its servers are up, by a check since then where there are checks.
fn is_settled(backend: &Backend, since: Duration) -> bool {
    !backend.servers.is_empty() && backend.servers.values().all(|server| is_known_up(server, since))
}

fn is_known_up(server: &Server, since: Duration) -> bool {
    // what an operator has taken out is not waited for
    if server.overridden.is_some() && !server.eligible {
        return true;
    }
    let passed = server
        .last_checks
        .first()
        .is_none_or(|last| last.outcome == CheckOutcome::Passed && last.seconds_ago <= since.as_secs_f64());
    server.state == ServerState::Up && passed
}

fn up(backend: &Backend) -> String {
    let up = backend.servers.values().filter(|server| server.eligible).count();
    format!("{up} of {} up", backend.servers.len())
}

/// `backend web: 0 of 1 up after 3 s`, and why the others are not.
fn report(name: &BackendName, backend: &Backend, took: Duration) -> String {
    let mut out = format!("backend {name}: {} after {} s\n", up(backend), took.as_secs());
    for (server, view) in backend.servers.iter().filter(|(_, server)| !server.eligible) {
        let why = view
            .state_reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let overridden = view.overridden.as_ref();
        let overridden = overridden.map_or_else(String::new, |it| format!(" (override: {it})"));
        out.push_str(&format!("  {name}/{server}: {}{overridden}{why}\n", view.state));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::views::CheckResult,
        cli::picture::tests::{a_server, backends_of},
    };

    fn checked(outcome: CheckOutcome, seconds_ago: f64) -> Server {
        Server {
            last_checks: vec![CheckResult {
                outcome: outcome.into(),
                seconds_ago,
                milliseconds: 1.0,
                reason: None,
            }],
            ..a_server(ServerState::Up)
        }
    }

    #[test]
    fn a_server_is_known_to_be_up_by_a_check_since_the_change() {
        let since = Duration::from_secs(3);
        for (server, is_known) in [
            (a_server(ServerState::Up), true),
            (a_server(ServerState::Down), false),
            (checked(CheckOutcome::Passed, 1.0), true),
            (checked(CheckOutcome::Passed, 4.0), false),
            (checked(CheckOutcome::Failed, 1.0), false),
        ] {
            assert_eq!(is_known_up(&server, since), is_known, "{server:?}");
        }
        let drained = Server {
            overridden: "draining".parse().ok(),
            eligible: false,
            ..a_server(ServerState::Draining)
        };
        assert!(is_known_up(&drained, since));
    }

    #[test]
    fn the_report_counts_those_that_are_up_and_says_why_the_others_are_not() {
        let mut backends = backends_of(&[("web", &["a", "b"])]);
        let (name, mut web) = backends.pop_first().expect("a backend");
        *web.servers.get_mut("b").expect("the server") = Server {
            eligible: false,
            state_reason: Some("connection refused".into()),
            ..a_server(ServerState::Down)
        };
        assert_eq!(
            report(&name, &web, Duration::from_millis(3_900)),
            "backend web: 1 of 2 up after 3 s\n  web/b: down: connection refused\n"
        );
        assert!(!is_settled(&web, Duration::ZERO));
    }
}
