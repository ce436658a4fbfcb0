//! `convey overrides`.

use std::io::Write as _;

use hyper::Method;

use super::{
    args::{ClearOverridesArgs, OverridesArgs, OverridesCommand, OverridesHistoryArgs},
    client::{Asked, Client, percent_encode},
    events,
    outcome::CommandResult,
    server::{Backends, find, report, usage},
    table::{Align, Table},
    text::{Cell, Style, colour_wanted, harmless, terminal_columns},
};
use crate::{
    admin::views::{Events, Overrides, Server},
    base::exit,
};

/// Lists or clears overrides.
pub fn run(args: &OverridesArgs, client: &Client) -> CommandResult {
    match &args.command {
        Some(OverridesCommand::Clear(args)) => clear(args, client),
        Some(OverridesCommand::History(args)) => history(args, client),
        None => list(args, client),
    }
}

fn list(args: &OverridesArgs, client: &Client) -> CommandResult {
    let overrides: Overrides = client.get("/v1/overrides")?.parse()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &overrides).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        let (colour, width) = (colour_wanted(&out), terminal_columns(&out));
        out.write_all(draw(&overrides, width, colour).as_bytes())?;
    }
    out.flush()?;
    Ok(exit::OK)
}

fn history(args: &OverridesHistoryArgs, client: &Client) -> CommandResult {
    let history: Events = client.get("/v1/overrides/history")?.parse()?;
    if history.events.is_empty() && !args.json {
        writeln!(
            std::io::stdout(),
            "no overrides were set or cleared since the start"
        )?;
    }
    events::tell(&history, args.json)?;
    Ok(exit::OK)
}

fn clear(args: &ClearOverridesArgs, client: &Client) -> CommandResult {
    let mut out = std::io::stdout().lock();
    if args.all {
        let answer = client.send(Asked::of(Method::DELETE, "/v1/overrides"))?;
        let cleared: Overrides = answer.parse()?;
        for each in &cleared.overrides {
            let line = format!("{}/{}: cleared ({})", each.backend, each.server, each.overridden);
            writeln!(out, "{}", harmless(&line))?;
        }
        if cleared.overrides.is_empty() {
            writeln!(out, "no overrides")?;
        }
        out.flush()?;
        return Ok(exit::OK);
    }
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    let servers = find(&backends, &args.servers).map_err(|problem| usage(problem.message))?;
    for named in servers {
        let target = format!(
            "/v1/overrides/{}/{}",
            percent_encode(named.backend.as_str()),
            percent_encode(named.name.as_str())
        );
        let server: Server = client.send(Asked::of(Method::DELETE, &target))?.parse()?;
        writeln!(out, "{}", report(&named.to_string(), &server))?;
        out.flush()?;
    }
    Ok(exit::OK)
}

fn draw(overrides: &Overrides, width: Option<usize>, colour: bool) -> String {
    if overrides.overrides.is_empty() {
        return "no overrides\n".to_owned();
    }
    let mut table = Table::new(&[("SERVER", Align::Left), ("OVERRIDE", Align::Left)]);
    for each in &overrides.overrides {
        table.row(vec![
            Cell::plain(format!("{}/{}", each.backend, each.server)),
            Cell::new(&each.overridden, Style::Notice),
        ]);
    }
    table.fit(width, &[]).render(colour)
}
