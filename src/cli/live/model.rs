//! What the live view shows, and what keys do to that: pure.

use std::cmp::Ordering;

use super::view::Picture;
use crate::{
    admin::views::{Percentiles, Phase, Server, Status, Windows},
    base::ServerState,
    cli::text::{Cell, Style, bytes, harmless, natural_order, time},
};

/// Titles of the columns of servers.
const TITLES: [&str; 8] = [
    "SERVER", "STATE", "CONNS", "CONN/S", "FAIL/S", "IN/S", "OUT/S", "P90 MS",
];

/// What servers are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// What is down first.
    #[default]
    State,
    /// Names.
    Name,
    /// Connections now.
    Connections,
    /// New connections a second.
    Rate,
    /// Failures a second.
    Failures,
    /// Bytes a second, both ways.
    Bytes,
    /// What nine of ten connects took.
    Time,
}

impl Sort {
    const ALL: [Self; 7] = [
        Self::State,
        Self::Name,
        Self::Connections,
        Self::Rate,
        Self::Failures,
        Self::Bytes,
        Self::Time,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Name => "name",
            Self::Connections => "connections",
            Self::Rate => "connections/s",
            Self::Failures => "failures/s",
            Self::Bytes => "bytes/s",
            Self::Time => "connect time",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL.get(at + 1).copied().unwrap_or_default()
    }
}

/// What somebody wants of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To leave.
    Quit,
    /// The rows above or below.
    Move(isize),
    /// The first row.
    First,
    /// The last row.
    Last,
    /// The detail of the chosen server, or no longer.
    Detail,
    /// Another order.
    Sort,
    /// The order the other way round.
    Reverse,
}

/// What is chosen.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    sort: Sort,
    is_reversed: bool,
    /// The chosen server's name, which stays chosen wherever it is sorted to.
    server: Option<String>,
    has_detail: bool,
    /// The names as they were shown last.
    shown: Vec<String>,
}

/// A server with its name.
type Named<'a> = (String, &'a Server);

impl Chosen {
    /// With another order to begin with.
    pub fn sorted_by(sort: Sort) -> Self {
        Self {
            sort,
            ..Self::default()
        }
    }

    /// Does what is wanted; whether it goes on.
    pub fn obey(&mut self, wish: Wish) -> bool {
        let last = self.shown.len().saturating_sub(1);
        let to = match wish {
            Wish::Quit => return false,
            Wish::Move(by) => self.position().saturating_add_signed(by).min(last),
            Wish::First => 0,
            Wish::Last => last,
            Wish::Detail => {
                self.has_detail = !self.has_detail;
                self.position()
            }
            Wish::Sort => {
                self.sort = self.sort.next();
                return true;
            }
            Wish::Reverse => {
                self.is_reversed = !self.is_reversed;
                return true;
            }
        };
        self.server = self.shown.get(to).cloned();
        true
    }

    /// The row of the chosen server, or the first.
    fn position(&self) -> usize {
        let chosen = self.server.as_ref();
        let found = chosen.and_then(|chosen| self.shown.iter().position(|name| name == chosen));
        found.unwrap_or(0)
    }

    /// What is to be seen of a status.
    pub fn picture(&mut self, status: &Status) -> Picture {
        let mut servers = all(status);
        servers.sort_by(|one, other| {
            let order = self.order(one, other);
            if self.is_reversed { order.reverse() } else { order }
        });
        self.shown = servers.iter().map(|(name, _)| name.clone()).collect();
        let selected = self.position();
        let chosen = servers.get(selected).filter(|_| self.has_detail);
        Picture {
            headline: headline(status),
            problems: problems(status),
            frontends: status
                .frontends
                .iter()
                .map(|(name, view)| {
                    let state = if view.serves {
                        Cell::new("serves", Style::Good)
                    } else {
                        Cell::new("serves nobody", Style::Bad)
                    };
                    let rates = &view.rates;
                    let numbers = numbers(
                        view.traffic.connections_current,
                        [rates.connections, rates.failures, rates.bytes_in, rates.bytes_out],
                        view.session_time,
                    );
                    [Cell::plain(name), state].into_iter().chain(numbers).collect()
                })
                .collect(),
            titles: TITLES.map(str::to_owned).to_vec(),
            servers: servers.iter().map(|(name, server)| row(name, server)).collect(),
            selected,
            detail: chosen.map(|(name, server)| (harmless(name).into_owned(), detail(server))),
            keys: self.keys(),
        }
    }

    fn keys(&self) -> String {
        let reversed = if self.is_reversed { ", reversed" } else { "" };
        format!(
            "q quit  ↑↓ choose  ⏎ detail  s sort ({}{reversed})  r reverse",
            self.sort.label()
        )
    }

    fn order(&self, one: &Named<'_>, other: &Named<'_>) -> Ordering {
        // the most first
        let most = |of: fn(&Server) -> f64| of(other.1).total_cmp(&of(one.1));
        let order = match self.sort {
            Sort::Name => Ordering::Equal,
            Sort::State => severity(one.1).cmp(&severity(other.1)),
            Sort::Connections => other
                .1
                .traffic
                .connections_current
                .cmp(&one.1.traffic.connections_current),
            Sort::Rate => most(|server| server.rates.connections.ten_seconds),
            Sort::Failures => most(|server| server.rates.failures.ten_seconds),
            Sort::Bytes => {
                most(|server| server.rates.bytes_in.ten_seconds + server.rates.bytes_out.ten_seconds)
            }
            Sort::Time => most(|server| server.connect_time.map_or(-1.0, |time| time.p90)),
        };
        order.then_with(|| natural_order(&one.0, &other.0))
    }
}

fn all(status: &Status) -> Vec<Named<'_>> {
    let backends = status.backends.iter();
    backends
        .flat_map(|(backend, view)| {
            let servers = view.servers.iter();
            servers.map(move |(name, server)| (format!("{backend}/{name}"), server))
        })
        .collect()
}

/// What is worst comes first.
fn severity(server: &Server) -> u8 {
    match server.state.known() {
        Some(ServerState::Down) => 0,
        _ if !server.eligible => 1,
        _ => 2,
    }
}

fn headline(status: &Status) -> Vec<Cell> {
    let servers = || {
        status
            .backends
            .values()
            .flat_map(|backend| backend.servers.values())
    };
    let (up, all) = (
        servers().filter(|server| server.eligible).count(),
        servers().count(),
    );
    let phase = if status.phase == Phase::Running {
        Style::Good
    } else {
        Style::Notice
    };
    vec![
        Cell::new(format!("convey {}  ", status.version), Style::Bold),
        Cell::new(&status.phase, phase),
        Cell::plain(format!(
            ", up {}, generation {}  {up} of {all} servers eligible",
            time(status.uptime_seconds),
            status.config_generation
        )),
    ]
}

fn problems(status: &Status) -> Vec<String> {
    let reload = status.last_reload_error.as_ref().map(|error| {
        let first = error.lines().next().unwrap_or_default();
        format!("The last reload failed: {}", harmless(first))
    });
    let restart = (!status.needs_restart.is_empty()).then(|| {
        format!(
            "Needs a restart to take effect: {}",
            harmless(&status.needs_restart.join(", "))
        )
    });
    reload.into_iter().chain(restart).collect()
}

fn row(name: &str, server: &Server) -> Vec<Cell> {
    let rates = &server.rates;
    let numbers = numbers(
        server.traffic.connections_current,
        [rates.connections, rates.failures, rates.bytes_in, rates.bytes_out],
        server.connect_time,
    );
    [Cell::plain(name), state(server)]
        .into_iter()
        .chain(numbers)
        .collect()
}

fn state(server: &Server) -> Cell {
    let style = match severity(server) {
        0 => Style::Bad,
        1 => Style::Notice,
        _ => Style::Good,
    };
    Cell::new(&server.state, style)
}

/// Connections, what goes on in a second, and a time.
fn numbers(
    connections: u64,
    [new, failures, bytes_in, bytes_out]: [Windows; 4],
    times: Option<Percentiles>,
) -> [Cell; 6] {
    let failing = if failures.ten_seconds > 0.0 {
        Style::Bad
    } else {
        Style::Plain
    };
    let whole = |rate: Windows| bytes(rate.ten_seconds.max(0.0).round() as u64);
    [
        Cell::plain(connections),
        Cell::plain(rate(new.ten_seconds)),
        Cell::new(rate(failures.ten_seconds), failing),
        Cell::plain(whole(bytes_in)),
        Cell::plain(whole(bytes_out)),
        Cell::plain(times.map_or_else(|| "-".to_owned(), |times| format!("{:.1}", times.p90))),
    ]
}

fn rate(rate: f64) -> String {
    if rate < 9.95 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

/// What is told of a server, a line each: no more than there is room for.
fn detail(server: &Server) -> Vec<(&'static str, Cell)> {
    let since = server
        .state_seconds
        .map_or_else(String::new, |seconds| format!(" for {}", time(seconds)));
    let why = server
        .state_reason
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    let overridden = server
        .overridden
        .as_ref()
        .map_or_else(String::new, |it| format!(" (override: {it})"));
    let limit = server
        .max_connections
        .map_or_else(|| "no limit".to_owned(), |limit| format!("at most {limit}"));
    let windows = |of: Windows| {
        format!(
            "{} / {} / {}",
            rate(of.ten_seconds),
            rate(of.minute),
            rate(of.five_minutes)
        )
    };
    let times = |times: Option<Percentiles>| {
        times.map_or_else(
            || "-".to_owned(),
            |times| {
                format!(
                    "p50 {:.1}  p90 {:.1}  p99 {:.1} ms ({} of late)",
                    times.p50, times.p90, times.p99, times.count
                )
            },
        )
    };
    let checks = server.last_checks.iter().take(1).map(|check| {
        let why = check
            .reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let text = format!(
            "{} {} ago, {:.1} ms{why}",
            check.outcome,
            time(check.seconds_ago),
            check.milliseconds
        );
        ("last check", Cell::plain(text))
    });
    let facts = [
        ("address", Cell::plain(server.addr)),
        (
            "state",
            Cell::new(
                format!("{}{since}{overridden}{why}", server.state),
                state(server).style(),
            ),
        ),
        (
            "weight",
            Cell::plain(format!(
                "{} (configured {}), {} % in effect, priority {}, {limit}",
                server.weight, server.configured_weight, server.effective_percent, server.priority
            )),
        ),
        (
            "connections",
            Cell::plain(format!(
                "{} now, {} in all, {} connects failed",
                server.traffic.connections_current,
                server.traffic.connections_total,
                server.traffic.connect_failures
            )),
        ),
        (
            "new/s",
            Cell::plain(format!(
                "{} (10 s / 1 min / 5 min)",
                windows(server.rates.connections)
            )),
        ),
        ("failures/s", Cell::plain(windows(server.rates.failures))),
        ("connect", Cell::plain(times(server.connect_time))),
        ("lasted", Cell::plain(times(server.session_time))),
    ];
    facts.into_iter().chain(checks).collect()
}

#[cfg(test)]
mod tests;
