//! `convey events`.

use std::{io::Write as _, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    args::EventsArgs,
    client::{Asked, Client, percent_encode},
    outcome::{CommandResult, Failure},
    text::{Style, colour_wanted, harmless},
};
use crate::{
    admin::{
        Level,
        views::{Event, Events},
    },
    base::exit,
};

/// Between two questions for what has come.
const PERIOD: Duration = Duration::from_millis(300);

/// Most that is asked for at once.
const MOST: u16 = 1_024;

/// Lists the last events, and those that come if that is wanted.
pub fn run(args: &EventsArgs, client: &Client) -> CommandResult {
    client.runtime().block_on(list(args, client))
}

async fn list(args: &EventsArgs, client: &Client) -> CommandResult {
    let first: Events = client.ask(Asked::get(&target(args, None))).await?.parse()?;
    tell(&first, args.json)?;
    if !args.follow {
        return Ok(exit::OK);
    }
    let failed =
        |error: std::io::Error| Failure::new(exit::OS_ERROR, format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut last = first.last;
    let mut is_away = false;
    loop {
        tokio::select! {
            () = sleep(PERIOD) => {}
            _ = interrupt.recv() => return Ok(exit::OK),
            _ = terminate.recv() => return Ok(exit::OK),
        }
        let answer = client.ask(Asked::get(&target(args, Some(last)))).await;
        match answer.and_then(|answer| answer.parse::<Events>()) {
            Ok(events) => {
                is_away = false;
                last = events.last;
                tell(&events, args.json)?;
            }
            // it may be restarting, and numbers go on over that
            Err(Failure::Told { message, .. }) if !std::mem::replace(&mut is_away, true) => {
                writeln!(
                    std::io::stderr(),
                    "{}; waiting for it",
                    message.replace('\n', " ")
                )?;
            }
            Err(Failure::Told { .. }) => {}
            Err(gone @ Failure::ReaderGone) => return Err(gone),
        }
    }
}

/// What is asked: the last ones, or those after a number.
fn target(args: &EventsArgs, after: Option<u64>) -> String {
    let mut target = match after {
        None => format!("/v1/events?limit={}", args.limit),
        Some(after) => format!("/v1/events?limit={MOST}&after={after}"),
    };
    let level = args.level.map(|level| level.label().to_owned());
    for (key, value) in [
        ("level", &level),
        ("event", &args.event),
        ("frontend", &args.frontend),
        ("backend", &args.backend),
        ("server", &args.server),
    ] {
        if let Some(value) = value {
            target.push_str(&format!("&{key}={}", percent_encode(value)));
        }
    }
    target
}

/// Prints events, a line each.
pub fn tell(events: &Events, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if events.gap {
        writeln!(std::io::stderr(), "some events in between are kept no more")?;
    }
    let colour = colour_wanted(&out);
    for event in &events.events {
        match json {
            true => writeln!(
                out,
                "{}",
                serde_json::to_string(event).map_err(std::io::Error::from)?
            )?,
            false => writeln!(out, "{}", line(event, colour))?,
        }
    }
    Ok(out.flush()?)
}

fn line(event: &Event, colour: bool) -> String {
    let style = match event.level.known() {
        Some(Level::Error) => Style::Bad,
        Some(Level::Warning) => Style::Notice,
        Some(Level::Info) | None => Style::Plain,
    };
    // one line each, whatever it says
    let message = event.message.replace('\n', " ");
    let by = event.fields.get("by");
    let by = by.map(|who| format!(" ({})", who.replace('\n', " ")));
    let level = format!("{:7}", event.level.to_string());
    format!(
        "{} {} {}{}",
        harmless(&event.at),
        style.paint(&harmless(&level), colour),
        harmless(&message),
        harmless(&by.unwrap_or_default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser as _;

    fn args(line: &str) -> EventsArgs {
        match Cli::try_parse_from(line.split(' '))
            .expect("good grammar")
            .command
        {
            Some(Command::Events(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wanted_is_asked_for() {
        assert_eq!(target(&args("convey events"), None), "/v1/events?limit=20");
        let some = args("convey events -f --level warning --backend a/b -n 0 --event server_up,server_down");
        assert_eq!(
            target(&some, Some(7)),
            "/v1/events?limit=1024&after=7&level=warning&event=server_up%2Cserver_down&backend=a%2Fb"
        );
    }

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            id: 7,
            at: "2026-11-30T10:00:00Z".into(),
            level: Level::Error.into(),
            event: "backend_down".into(),
            message: "backend web is down\nreally".into(),
            fields: [].into(),
        };
        assert_eq!(
            line(&event, false),
            "2026-11-30T10:00:00Z error   backend web is down really"
        );
    }
}
