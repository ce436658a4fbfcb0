//! `convey status` as text: pure, from the daemon's view to lines.

mod certificates;
mod checks;
mod discovery;
mod losses;
mod packets;

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    table::{Align, Table},
    text::{Cell, Style, bytes, harmless, natural_order, time},
};
use crate::{
    admin::views::{Backend, Frontend, Phase, Server, Status, Traffic},
    base::{BackendName, BackendState, ListenPlace, Protocol, ServerState},
};

/// Lines of a failed reload's text that are shown: two or three findings with their excerpts.
const ERROR_LINES: usize = 16;

/// An earlier picture, and the seconds since: what rates are computed from.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// The earlier picture, of the same process.
    pub status: &'a Status,
    /// Seconds between the two.
    pub seconds: f64,
}

/// Servers of each backend.
pub type Totals = BTreeMap<BackendName, usize>;

/// How it is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look<'a> {
    /// An earlier picture: rates then stand in place of sums of bytes.
    pub earlier: Option<Earlier<'a>>,
    /// Whether it is coloured.
    pub colour: bool,
    /// Columns of the terminal, if it goes to one.
    pub width: Option<usize>,
    /// Whether what is down comes first.
    pub down_first: bool,
    /// If only what was asked for is in it: how many servers each backend really has.
    pub selected: Option<&'a Totals>,
}

/// The whole picture.
pub fn draw(status: &Status, look: &Look<'_>) -> String {
    let Look { earlier, colour, .. } = *look;
    let mut out = headline(status, colour);
    if status.frontends.is_empty() && look.selected.is_some() {
        if status.backends.is_empty() {
            out.push_str("\nnothing is down\n");
        }
    } else if status.frontends.is_empty() {
        let _ = write!(
            out,
            "\nNo frontend is configured yet, so clients cannot connect. What to do next:\n  \
             1. Add a [frontends.NAME] and its [backends.NAME] to {file}.\n     \
             Every setting is in `man convey.toml`, examples are in /usr/share/doc/convey/examples.\n  \
             2. convey check {file}\n  \
             3. convey reload\n",
            file = harmless(&status.config_file)
        );
    } else {
        out.push('\n');
        out.push_str(&frontends(status, look).render(colour));
        if let Some(acme) = &status.acme {
            out.push_str(&certificates::lines(acme, colour));
        }
    }
    if !status.backends.is_empty() {
        out.push('\n');
        out.push_str(&backends(status, look).render(colour));
    }
    if look.selected.is_some() {
        out.push_str(&checks::draw(status, colour));
    }
    if let Some(packet) = &status.packet {
        let then = earlier.and_then(|e| Some((e.status.packet.as_ref()?, e.seconds)));
        out.push('\n');
        out.push_str(&packets::draw(packet, then, look));
    }
    out
}

fn headline(status: &Status, colour: bool) -> String {
    let name = Style::Bold.paint(&format!("convey {}", harmless(&status.version)), colour);
    let phase = if status.phase == Phase::Running {
        Style::Good
    } else {
        Style::Notice
    };
    // a failing write to a String does not exist, here and below
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{name}  pid {}, {}, up {}, {}",
        status.pid,
        phase.paint(&harmless(&status.phase.to_string()), colour),
        time(status.uptime_seconds),
        counted(status.workers as u64, "worker"),
    );
    let _ = writeln!(
        out,
        "configuration {} (generation {})",
        harmless(&status.config_file),
        status.config_generation,
    );
    if let Some(error) = &status.last_reload_error {
        let title = Style::Bad.paint(
            "The last reload failed; the configuration before it stays in effect:",
            colour,
        );
        let _ = writeln!(out, "{title}");
        let error = harmless(error.trim_end());
        for line in error.lines().take(ERROR_LINES) {
            let _ = writeln!(out, "  {line}");
        }
        let more = error.lines().count().saturating_sub(ERROR_LINES);
        if more > 0 {
            let file = harmless(&status.config_file);
            let _ = writeln!(
                out,
                "  ({}: see `convey check {file}`)",
                counted(more as u64, "more line")
            );
        }
    }
    if !status.needs_restart.is_empty() {
        let keys = status.needs_restart.join(", ");
        let _ = writeln!(
            out,
            "{} {}",
            Style::Notice.paint("Needs a restart to take effect:", colour),
            harmless(&keys)
        );
    }
    losses::draw(&mut out, status, colour);
    out
}

/// A number of things: `1 server`, `2 servers`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Headings of the columns that [`traffic_cells`] fills.
fn traffic_columns(rates: bool) -> [(&'static str, Align); 4] {
    let [third, fourth] = if rates { ["IN/S", "OUT/S"] } else { ["IN", "OUT"] };
    let second = if rates { "CONN/S" } else { "TOTAL" };
    [
        ("CONNS", Align::Right),
        (second, Align::Right),
        (third, Align::Right),
        (fourth, Align::Right),
    ]
}

/// Connections now, then sums or, with an earlier picture in which this existed, rates.
fn traffic_cells(now: &Traffic, earlier: Option<(Option<&Traffic>, f64)>) -> [Cell; 4] {
    let current = Cell::plain(now.connections_current.to_string());
    match earlier {
        None => [
            current,
            Cell::plain(now.connections_total.to_string()),
            Cell::plain(bytes(now.bytes_in)),
            Cell::plain(bytes(now.bytes_out)),
        ],
        Some((None, _)) => [current, Cell::plain("-"), Cell::plain("-"), Cell::plain("-")],
        Some((Some(then), seconds)) => {
            // a counter that was below its earlier value belongs to something new of the same name
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let connections = rate(now.connections_total, then.connections_total);
            [
                current,
                Cell::plain(rate_text(connections)),
                Cell::plain(bytes(whole(rate(now.bytes_in, then.bytes_in)))),
                Cell::plain(bytes(whole(rate(now.bytes_out, then.bytes_out)))),
            ]
        }
    }
}

/// A rate with two figures at least.
fn rate_text(rate: f64) -> String {
    if rate < 9.95 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

/// A rate without its fraction.
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn limit(limit: Option<u32>) -> Cell {
    limit.map_or_else(
        || Cell::new("-", Style::Dim),
        |limit| Cell::plain(limit.to_string()),
    )
}

fn frontends(status: &Status, look: &Look<'_>) -> Table {
    let earlier = look.earlier;
    let [conns, second, third, fourth] = traffic_columns(earlier.is_some());
    let mut table = Table::new(&[
        ("FRONTEND", Align::Left),
        ("LISTENS ON", Align::Left),
        ("MODE", Align::Left),
        ("BACKEND", Align::Left),
        conns,
        ("MAX", Align::Right),
        second,
        third,
        fourth,
        ("NOTE", Align::Left),
    ]);
    let mut frontends: Vec<_> = status.frontends.iter().collect();
    frontends.sort_by(|(one, _), (other, _)| natural_order(one.as_str(), other.as_str()));
    if look.down_first {
        frontends.sort_by_key(|(_, frontend)| frontend.serves);
    }
    for (name, frontend) in frontends {
        let then = earlier.map(|e| (e.status.frontends.get(name).map(|f| &f.traffic), e.seconds));
        let [conns, second, third, fourth] = traffic_cells(&frontend.traffic, then);
        let mut addresses = frontend.listen.iter();
        let first = addresses.next();
        table.row(vec![
            Cell::new(name, Style::Bold),
            first.map_or_else(|| Cell::plain("-"), |first| listens_on(frontend, first)),
            Cell::plain(&frontend.mode),
            Cell::plain(leads_to(frontend)),
            conns,
            limit(frontend.max_connections),
            second,
            third,
            fourth,
            (first.and_then(|first| waits(frontend, first))).unwrap_or_else(|| frontend_note(frontend)),
        ]);
        for address in addresses {
            let mut row = vec![Cell::plain(""), listens_on(frontend, address)];
            if let Some(why) = waits(frontend, address) {
                row.resize(9, Cell::plain(""));
                row.push(why);
            }
            table.row(row);
        }
    }
    table.fit(look.width, &["MAX", "TOTAL", "MODE", "CONN/S", "BACKEND"])
}

/// The backend, and how many others its routes lead to.
fn leads_to(frontend: &Frontend) -> String {
    match frontend.route_backends.len() {
        0 => frontend.backend.to_string(),
        others => format!("{} +{others}", frontend.backend),
    }
}

fn listens_on(frontend: &Frontend, address: &ListenPlace) -> Cell {
    if frontend.protocol == Protocol::Tcp {
        Cell::plain(address)
    } else {
        Cell::plain(format!("{address} {}", frontend.protocol))
    }
}

/// Why packets to an address do not reach us, if they do not.
fn waits(frontend: &Frontend, address: &ListenPlace) -> Option<Cell> {
    let why = frontend.waiting.get(&address.on_network()?)?;
    Some(Cell::new(format!("waiting: {why}"), Style::Notice))
}

fn frontend_note(frontend: &Frontend) -> Cell {
    let full = frontend
        .max_connections
        .min(frontend.max_sessions)
        .or(frontend.max_connections)
        .or(frontend.max_sessions)
        .is_some_and(|max| frontend.traffic.connections_current >= u64::from(max));
    let dropped: u64 = frontend.datagrams_dropped.values().sum();
    let refused: u64 = frontend.refused.values().sum();
    let notes = [
        frontend
            .logs_tls_keys
            .then(|| "writes TLS keys to a file".to_owned()),
        full.then(|| "full".to_owned()),
        (!full && frontend.accept_errors > 0).then(|| counted(frontend.accept_errors, "accept error")),
        (refused > 0).then(|| format!("{refused} refused")),
        (dropped > 0).then(|| format!("{dropped} dropped")),
    ];
    match notes.into_iter().flatten().collect::<Vec<_>>().join(", ") {
        note if note.is_empty() => Cell::plain(""),
        note => Cell::new(note, Style::Notice),
    }
}

fn backends(status: &Status, look: &Look<'_>) -> Table {
    let earlier = look.earlier;
    let [conns, second, third, fourth] = traffic_columns(earlier.is_some());
    let mut table = Table::new(&[
        ("BACKEND/SERVER", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("WEIGHT", Align::Right),
        conns,
        ("MAX", Align::Right),
        second,
        third,
        fourth,
        ("FAILED", Align::Right),
        ("NOTE", Align::Left),
    ]);
    let mut backends: Vec<_> = status.backends.iter().collect();
    backends.sort_by(|(one, _), (other, _)| natural_order(one.as_str(), other.as_str()));
    if look.down_first {
        let rank = |backend: &Backend| backend.servers.values().map(trouble).min();
        backends.sort_by_key(|(_, backend)| (backend.state != BackendState::Down, rank(backend)));
    }
    for (name, backend) in backends {
        let before = earlier.map(|e| (e.status.backends.get(name), e.seconds));
        let then = before.map(|(b, seconds)| (b.map(|b| &b.traffic), seconds));
        let [conns, second, third, fourth] = traffic_cells(&backend.traffic, then);
        table.row(vec![
            Cell::new(name, Style::Bold),
            Cell::new(&backend.balance, Style::Dim),
            eligible(backend, look.selected.and_then(|totals| totals.get(name))),
            Cell::plain(""),
            Cell::plain(""),
            conns,
            Cell::plain(""),
            second,
            third,
            fourth,
            Cell::plain(backend.traffic.connect_failures.to_string()),
            backend_note(backend),
        ]);
        let mut servers: Vec<_> = backend.servers.iter().collect();
        servers.sort_by(|(one, _), (other, _)| natural_order(one.as_str(), other.as_str()));
        if look.down_first {
            servers.sort_by_key(|(_, server)| trouble(server));
        }
        for (name, server) in servers {
            let then =
                before.map(|(b, seconds)| (b.and_then(|b| b.servers.get(name)).map(|s| &s.traffic), seconds));
            table.row(server_row(name.as_str(), server, then));
        }
    }
    table.fit(
        look.width,
        &["TOTAL", "MAX", "WEIGHT", "CONN/S", "SINCE", "ADDRESS"],
    )
}

/// 0 of a server that is down, 2 of one that is up.
fn trouble(server: &Server) -> u8 {
    match server.state.known() {
        Some(ServerState::Down) => 0,
        Some(ServerState::Up) => 2,
        _ => 1,
    }
}

fn eligible(backend: &Backend, total: Option<&usize>) -> Cell {
    let all_up = backend.servers.values().all(|s| s.state == ServerState::Up);
    let style = match backend.state.known() {
        Some(BackendState::Down) => Style::Bad,
        Some(BackendState::Up) if all_up => Style::Good,
        Some(BackendState::Up) | None => Style::Notice,
    };
    let total = total.copied().unwrap_or(backend.servers.len());
    let text = format!("{} of {total} eligible", backend.eligible);
    Cell::new(text, style)
}

fn backend_note(backend: &Backend) -> Cell {
    if backend.queued > 0 {
        let waiting = counted(u64::from(backend.queued), "connection");
        Cell::new(format!("{waiting} waiting for a server"), Style::Notice)
    } else if let Some(source) = backend
        .discovery
        .as_ref()
        .filter(|source| source.problem.is_some())
    {
        discovery::note(source)
    } else if backend.servers.is_empty() {
        discovery::beside("no servers", backend.discovery.as_ref())
    } else if backend.state == BackendState::Down {
        let wrong = "no eligible server: new connections are refused";
        discovery::beside(wrong, backend.discovery.as_ref())
    } else if backend.tls.as_ref().is_some_and(|tls| !tls.verified) {
        Cell::new("servers are not verified (tls.verify = false)", Style::Notice)
    } else if let Some(sticky) = backend.sticky.filter(|sticky| sticky.refused > 0) {
        let clients = counted(sticky.refused, "client");
        Cell::new(
            format!("no room to remember {clients} (sticky.max_entries)"),
            Style::Notice,
        )
    } else if let Some(source) = &backend.discovery {
        discovery::note(source)
    } else {
        Cell::plain("")
    }
}

fn server_row(name: &str, server: &Server, then: Option<(Option<&Traffic>, f64)>) -> Vec<Cell> {
    let style = match server.state.known() {
        Some(ServerState::Up) => Style::Good,
        Some(ServerState::Down) => Style::Bad,
        Some(ServerState::Checking | ServerState::Draining | ServerState::Maintenance) | None => {
            Style::Notice
        }
    };
    let [conns, second, third, fourth] = traffic_cells(&server.traffic, then);
    vec![
        Cell::plain(format!("  {name}")),
        Cell::plain(server.addr),
        Cell::new(&server.state, style),
        Cell::plain(server.state_seconds.map_or_else(String::new, time)),
        Cell::plain(server.weight.to_string()),
        conns,
        limit(server.max_connections),
        second,
        third,
        fourth,
        Cell::plain(server.traffic.connect_failures.to_string()),
        server_note_cell(server),
    ]
}

/// What is to be said of a server, marked if an operator should look at it.
fn server_note_cell(server: &Server) -> Cell {
    let style = match packets::server_needs_attention(server) {
        true => Style::Bad,
        false => Style::Plain,
    };
    Cell::new(server_note(server), style)
}

fn server_note(server: &Server) -> String {
    let mut notes = Vec::new();
    if let Some(overridden) = &server.overridden {
        let configured = if server.weight == server.configured_weight {
            String::new()
        } else {
            format!(" (configured {})", server.configured_weight)
        };
        notes.push(format!("override: {overridden}{configured}"));
    }
    if let Some(agent) = &server.agent {
        let words = [Some(&*agent.says), agent.problem.as_deref()];
        let words = words.into_iter().flatten().filter(|text| !text.is_empty());
        notes.extend(words.map(|text| format!("agent: {}", harmless(text))));
    }
    let share = (server.weight, server.effective_percent);
    notes.extend(match share {
        _ if server.state != ServerState::Up => None,
        (0, _) => Some("weight 0: gets no new connections".to_owned()),
        (_, 0) => Some(format!("standby, priority {}", server.priority)),
        (_, percent @ 1..100) => Some(format!("slow start, {percent} %")),
        _ => None,
    });
    // of a server that is up it is the failure before last
    if server.state != ServerState::Up {
        notes.extend(server.state_reason.as_deref().map(str::to_owned));
    }
    if server.state == ServerState::Down && server.eligible {
        notes.push("used anyway: no other server is eligible".to_owned());
    }
    notes.extend(packets::server_notes(server));
    notes.join("; ")
}

#[cfg(test)]
pub(super) mod tests;
