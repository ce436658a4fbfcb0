//! `convey status`.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    args::StatusArgs,
    client::{Asked, Client, Response},
    outcome::{CommandResult, Failure},
    picture::{self, Earlier, Look, Totals},
    select::Selection,
    text::{colour_wanted, terminal_columns},
};
use crate::{
    admin::{
        lookup,
        views::{Phase, Status},
    },
    base::{FrontendName, exit},
};

const TARGET: &str = "/v1/status";

/// Shows the state once, or again and again.
pub fn run(args: &StatusArgs, client: &Client) -> CommandResult {
    match args.watch {
        Some(seconds) => client
            .runtime()
            .block_on(watch(client, Duration::from_secs_f64(seconds), args)),
        None if args.quiet => serves(client, args.frontend.as_deref()),
        None => once(client, args),
    }
}

/// What was asked for of an answer.
fn selected(answer: &Response, args: &StatusArgs) -> Result<(Status, Option<Totals>), Failure> {
    let mut status: Status = answer.parse()?;
    let selection = Selection {
        names: &args.names,
        down: args.down,
    };
    let totals = selection.apply(&mut status);
    let totals = totals.map_err(|problem| Failure::new(exit::USAGE, problem.message))?;
    Ok((status, totals))
}

/// For what watches over a host, such as keepalived: one that drains takes no new connections any more, nor does one
/// without an eligible server.
fn serves(client: &Client, frontend: Option<&str>) -> CommandResult {
    let status: Status = client.get(TARGET)?.parse()?;
    verdict(&status, frontend)
}

/// Whether every frontend is served, or the one that is named.
fn verdict(status: &Status, frontend: Option<&str>) -> CommandResult {
    let serves = match frontend {
        None => status.frontends.values().all(|frontend| frontend.serves),
        Some(name) => match status.frontends.get(name) {
            Some(frontend) => frontend.serves,
            None => {
                let known = status.frontends.keys().map(FrontendName::as_str);
                return Err(Failure::new(
                    exit::USAGE,
                    lookup::no_frontend(name, known).message,
                ));
            }
        },
    };
    Ok(if serves && status.phase == Phase::Running {
        exit::OK
    } else {
        exit::UNAVAILABLE
    })
}

fn once(client: &Client, args: &StatusArgs) -> CommandResult {
    let (status, totals) = selected(&client.get(TARGET)?, args)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &status).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        let look = Look {
            colour: colour_wanted(&out),
            width: terminal_columns(&out),
            selected: totals.as_ref(),
            ..Look::default()
        };
        out.write_all(picture::draw(&status, &look).as_bytes())?;
    }
    out.flush()?;
    Ok(exit::OK)
}

/// Draws until a signal ends it. A daemon that goes away is waited for: it may be restarting.
async fn watch(client: &Client, period: Duration, args: &StatusArgs) -> CommandResult {
    let json = args.json;
    let signal_failure =
        |error: std::io::Error| Failure::new(exit::OS_ERROR, format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signal_failure)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_failure)?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut screen: Option<Screen> = None;
    let mut last: Option<(Status, Instant)> = None;
    loop {
        let sample = async {
            ticks.tick().await;
            let answer = client.ask(Asked::get(TARGET)).await?;
            selected(&answer, args)
        };
        let sample = tokio::select! {
            sample = sample => sample,
            _ = interrupt.recv() => return Ok(exit::OK),
            _ = terminate.recv() => return Ok(exit::OK),
        };
        let now = Instant::now();
        // one that cannot be reached from the start is an error, as without --watch
        let screen = match (&mut screen, &sample) {
            (None, Err(_)) => return sample.map(|_| exit::OK),
            (slot, _) => slot.get_or_insert_with(|| Screen::new(json)),
        };
        match sample {
            Ok((status, _)) if json => {
                let line = serde_json::to_string(&status).map_err(std::io::Error::from)?;
                screen.show(&format!("{line}\n"))?;
            }
            Ok((status, totals)) => {
                let earlier = last.as_ref().filter(|(then, _)| then.pid == status.pid);
                let earlier = earlier.map(|(then, at)| Earlier {
                    status: then,
                    seconds: now.duration_since(*at).as_secs_f64(),
                });
                let look = Look {
                    earlier,
                    colour: screen.colour,
                    width: terminal_columns(&std::io::stdout()),
                    down_first: true,
                    selected: totals.as_ref(),
                };
                screen.show(&picture::draw(&status, &look))?;
                last = Some((status, now));
            }
            Err(Failure::Told { message, .. }) if !json => screen.show(&format!("{message}\n"))?,
            Err(_) => {}
        }
    }
}

/// Where `--watch` draws: over itself on a terminal, else one picture after another.
struct Screen {
    redraw: bool,
    colour: bool,
}

impl Screen {
    fn new(json: bool) -> Self {
        let out = std::io::stdout();
        Self {
            redraw: out.is_terminal() && !json,
            colour: colour_wanted(&out),
        }
    }

    /// Shows one picture in place of the last. One write, so that it does not flicker.
    fn show(&self, picture: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.redraw {
            let height = terminal_size::terminal_size().map(|(_, height)| usize::from(height.0));
            out.write_all(frame(picture, height).as_bytes())?;
        } else {
            out.write_all(picture.as_bytes())?;
        }
        Ok(out.flush()?)
    }
}

/// A picture as it is drawn over the last one: no line is wrapped, and no more lines are drawn than fit.
fn frame(picture: &str, height: Option<usize>) -> String {
    let lines: Vec<&str> = picture.lines().collect();
    // one line is left for the cursor, and one for saying what was left out
    let shown = match height {
        Some(height) if lines.len() >= height => height.saturating_sub(2),
        _ => lines.len(),
    };
    // ECMA-48 and DEC: no wrapping, cursor home; erase to the end of each line, and of the screen after the last
    let mut out = "\x1b[?7l\x1b[H".to_owned();
    for line in lines.iter().take(shown) {
        out.push_str(line);
        out.push_str("\x1b[K\n");
    }
    if shown < lines.len() {
        out.push_str(&format!("... {} more lines\x1b[K\n", lines.len() - shown));
    }
    out.push_str("\x1b[J\x1b[?7h");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::picture::tests::example;

    #[test]
    fn quiet_is_0_only_if_what_is_asked_about_serves() {
        let mut status = example();
        let asked = |status: &Status, frontend| match verdict(status, frontend) {
            Ok(exit) | Err(Failure::Told { exit, .. }) => exit,
            Err(Failure::ReaderGone) => exit::IO,
        };
        assert!(!status.frontends["mail"].serves, "its backend has no servers");
        assert_eq!(asked(&status, Some("web")), exit::OK);
        assert_eq!(asked(&status, Some("mail")), exit::UNAVAILABLE);
        assert_eq!(asked(&status, None), exit::UNAVAILABLE);
        assert_eq!(asked(&status, Some("wbe")), exit::USAGE);
        status.frontends.remove("mail");
        assert_eq!(asked(&status, None), exit::OK);
        status.phase = Phase::Stopping.into();
        assert_eq!(asked(&status, None), exit::UNAVAILABLE);
        assert_eq!(asked(&status, Some("web")), exit::UNAVAILABLE);
    }

    #[test]
    fn a_picture_taller_than_the_terminal_is_cut_so_that_its_head_stays() {
        let picture = "1\n2\n3\n4\n";
        let lines = |height| frame(picture, height).matches('\n').count();
        assert_eq!((lines(None), lines(Some(5))), (4, 4));
        let cut = frame(picture, Some(4));
        assert!(
            cut.contains("2\x1b[K\n... 2 more lines") && !cut.contains("3\x1b"),
            "{cut:?}"
        );
        assert_eq!(cut.matches('\n').count(), 3, "the cursor's line is free");
    }
}
