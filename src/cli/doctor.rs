//! `convey doctor`: what is wrong with this host and the convey on it, and what to do.

mod file;
mod finding;
mod host;
mod network;
mod rules;
mod running;

use std::{collections::BTreeSet, io::Write as _, path::Path};

use serde::Serialize;

use super::{
    args::{DoctorArgs, ModeArgs},
    client::Client,
    outcome::{CommandResult, Failure},
    target,
    text::{Style, colour_wanted, harmless},
};
use crate::{
    admin::views::{Certificates, HopState, Status},
    base::exit::{self, Exit},
    config::Config,
};
pub use finding::Diagnosis;
use finding::{Area, Level};
use network::Hop;

/// Looks at everything and prints what was found.
pub fn run(args: &DoctorArgs, config: Option<&Path>, mode: ModeArgs) -> CommandResult {
    let found = diagnose(args.target.socket.as_deref(), config, args.mode.or(mode));
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &Report::new(&found)).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        let colour = colour_wanted(&out);
        out.write_all(draw(&found, colour).as_bytes())?;
    }
    out.flush()?;
    Ok(exit_of(&found))
}

/// What is wrong, whether convey runs or not.
pub fn diagnose(socket: Option<&Path>, config: Option<&Path>, mode: ModeArgs) -> Diagnosis {
    let mut found = Diagnosis::default();
    let client = target::socket_path(socket, config).and_then(Client::new);
    let status = client.as_ref().map_err(told).and_then(|client| {
        let status = client
            .get("/v1/status")
            .and_then(|answer| answer.parse::<Status>());
        status.map_err(|failure| told(&failure))
    });
    // the file that runs; what was named, or would run, where that cannot be asked
    let running_file = status.as_ref().ok().map(|status| Path::new(&status.config_file));
    let looked = file::look(running_file.or(config), mode, &mut found);
    match (&client, &status) {
        (Ok(client), Ok(status)) => {
            running::judge(status, &mut found);
            file::compare(client, looked.text.as_deref(), &mut found);
            match client
                .get("/v1/certificates")
                .and_then(|answer| answer.parse::<Certificates>())
            {
                Ok(served) => running::certificates(&served, &|name| looked.files.contains(name), &mut found),
                Err(failure) => found.unseen(Area::Certificates, told(&failure)),
            }
        }
        (_, Err(why)) => found.warning(
            Area::Daemon,
            format!("it cannot be asked: {why}"),
            "systemctl status convey; what only the running convey knows was not looked at",
        ),
        (Err(failure), Ok(_)) => found.unseen(Area::Daemon, told(failure)),
    }
    let config = looked.config.as_ref();
    host::look(config, &mut found);
    let hops = status.as_ref().map(hops).unwrap_or_default();
    network::look(config, &hops, &mut found);
    if config.is_some_and(needs_rules_look) || status.is_err() {
        rules::look(config, status.is_ok(), &mut found);
    }
    found.sort();
    found
}

/// Whether the rules follow from the file alone, so that they can be compared with it.
fn needs_rules_look(config: &Config) -> bool {
    let frontends = config
        .frontends
        .values()
        .filter(|frontend| frontend.mode.is_packet());
    let backends: BTreeSet<_> = frontends.flat_map(|frontend| frontend.targets()).collect();
    let mut found = backends.iter().filter_map(|name| config.backends.get(*name));
    found.all(|backend| backend.discovery.is_none())
}

fn hops(status: &Status) -> Vec<Hop> {
    let hops = status.packet.iter().flat_map(|packet| &packet.next_hops);
    hops.filter(|(_, hop)| hop.state == HopState::Resolved)
        .map(|(server, hop)| Hop {
            server: *server,
            interface: hop.interface.clone(),
            mtu: hop.mtu,
        })
        .collect()
}

fn told(failure: &Failure) -> String {
    match failure {
        Failure::Told { message, .. } => message.replace('\n', " "),
        Failure::ReaderGone => String::new(),
    }
}

/// 0: nothing but notes; else by the worst.
fn exit_of(found: &Diagnosis) -> Exit {
    match (found.count(Level::Error), found.count(Level::Warning)) {
        (0, 0) => exit::OK,
        (0, _) => exit::NOT_YET,
        _ => exit::UNAVAILABLE,
    }
}

/// `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    errors: usize,
    warnings: usize,
    #[serde(flatten)]
    found: &'a Diagnosis,
}

impl<'a> Report<'a> {
    fn new(found: &'a Diagnosis) -> Self {
        Self {
            errors: found.count(Level::Error),
            warnings: found.count(Level::Warning),
            found,
        }
    }
}

/// A finding a paragraph, and what it comes to.
pub fn draw(found: &Diagnosis, colour: bool) -> String {
    let mut out = String::new();
    for finding in &found.findings {
        let style = match finding.level {
            Level::Error => Style::Bad,
            Level::Warning => Style::Notice,
            Level::Note => Style::Dim,
        };
        let level = style.paint(finding.level.label(), colour);
        let (message, remedy) = (harmless(&finding.message), harmless(&finding.remedy));
        out.push_str(&format!(
            "{level} {}: {message}\n    {remedy}\n",
            finding.area.label()
        ));
    }
    for unseen in &found.not_looked_at {
        out.push_str(&format!(
            "not looked at, {}: {}\n",
            unseen.area.label(),
            harmless(&unseen.why)
        ));
    }
    let counted = |level: Level| {
        let count = found.count(level);
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {}{plural}", level.label())
    };
    if found.findings.is_empty() {
        out.push_str("nothing found\n");
    } else {
        let counts = [Level::Error, Level::Warning, Level::Note].map(counted);
        out.push_str(&format!("{}\n", counts.join(", ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_the_worst() {
        let mut found = Diagnosis::default();
        assert_eq!(
            (exit_of(&found), draw(&found, false).as_str()),
            (exit::OK, "nothing found\n")
        );
        found.note(Area::Clock, "a", "b");
        assert_eq!(exit_of(&found), exit::OK);
        found.warning(Area::Conntrack, "c", "d");
        assert_eq!(exit_of(&found), exit::NOT_YET);
        found.error(Area::Traffic, "e\u{1b}", "f");
        found.unseen(Area::Firewall, "run it with sudo");
        assert_eq!(exit_of(&found), exit::UNAVAILABLE);
        found.sort();
        assert_eq!(
            draw(&found, false),
            "error traffic: e\u{fffd}\n    f\nwarning conntrack: c\n    d\nnote clock: a\n    b\n\
             not looked at, firewall: run it with sudo\n1 error, 1 warning, 1 note\n"
        );
        let json = serde_json::to_value(Report::new(&found)).expect("JSON");
        assert_eq!(
            (&json["errors"], &json["findings"][0]["level"]),
            (&1.into(), &"error".into())
        );
        assert_eq!(json["not_looked_at"][0]["area"], "firewall");
    }
}
