//! Orders, what is chosen, rows.

use super::*;
use crate::cli::picture::tests::{a_server, example};

fn names(picture: &Picture) -> Vec<&str> {
    picture
        .servers
        .iter()
        .filter_map(|row| Some(row.first()?.text()))
        .collect()
}

/// A backend with a busy server, one that is down, and one that was drained.
fn status() -> Status {
    let mut status = example();
    status.backends.retain(|name, _| name.as_str() == "web");
    let web = status.backends.get_mut("web").expect("the backend");
    web.servers.clear();
    let mut add = |name: &str, server: Server| {
        web.servers
            .insert(crate::base::ServerName::new(name).expect("a name"), server);
    };
    let mut busy = a_server(ServerState::Up);
    busy.rates.connections.ten_seconds = 120.4;
    busy.rates.bytes_in.ten_seconds = 2e6;
    busy.traffic.connections_current = 7;
    add("a", a_server(ServerState::Up));
    add("b", busy);
    add(
        "c",
        Server {
            eligible: false,
            ..a_server(ServerState::Down)
        },
    );
    add(
        "d",
        Server {
            eligible: false,
            ..a_server(ServerState::Draining)
        },
    );
    status
}

#[test]
fn what_is_down_comes_first_and_every_order_can_be_had_both_ways() {
    let status = status();
    let mut chosen = Chosen::default();
    assert_eq!(
        names(&chosen.picture(&status)),
        ["web/c", "web/d", "web/a", "web/b"]
    );
    assert!(chosen.obey(Wish::Sort));
    assert_eq!(
        names(&chosen.picture(&status)),
        ["web/a", "web/b", "web/c", "web/d"]
    );
    assert!(chosen.obey(Wish::Reverse));
    let picture = chosen.picture(&status);
    assert_eq!(names(&picture), ["web/d", "web/c", "web/b", "web/a"]);
    assert!(
        picture.keys.contains("s sort (name, reversed)"),
        "{}",
        picture.keys
    );
    for sort in [Sort::Connections, Sort::Rate, Sort::Bytes] {
        assert_eq!(
            names(&Chosen::sorted_by(sort).picture(&status))[0],
            "web/b",
            "{sort:?}"
        );
    }
    let round = Sort::ALL.iter().fold(Sort::State, |sort, _| sort.next());
    assert_eq!(round, Sort::State);
}

#[test]
fn a_chosen_server_stays_chosen_wherever_it_is_sorted_to() {
    let mut status = status();
    let mut chosen = Chosen::default();
    chosen.picture(&status);
    for wish in [Wish::Last, Wish::Detail] {
        assert!(chosen.obey(wish));
    }
    let picture = chosen.picture(&status);
    assert_eq!(picture.selected, 3);
    assert_eq!(picture.detail.expect("its detail").0, "web/b");
    let web = status.backends.get_mut("web").expect("the backend");
    *web.servers.get_mut("b").expect("the server") = Server {
        eligible: false,
        ..a_server(ServerState::Down)
    };
    let picture = chosen.picture(&status);
    assert_eq!(picture.servers[picture.selected][0].text(), "web/b");
    // one that is gone leaves the first
    status
        .backends
        .get_mut("web")
        .expect("the backend")
        .servers
        .remove("b");
    assert_eq!(chosen.picture(&status).selected, 0);
    assert!(chosen.obey(Wish::Move(-5)) && chosen.obey(Wish::Move(100)));
    assert_eq!(chosen.picture(&status).selected, 2);
    assert!(!chosen.obey(Wish::Quit));
}

#[test]
fn a_row_has_rates_of_the_last_ten_seconds() {
    let mut chosen = Chosen::sorted_by(Sort::Rate);
    let picture = chosen.picture(&status());
    let row: Vec<&str> = picture.servers[0].iter().map(Cell::text).collect();
    assert_eq!(row, ["web/b", "up", "7", "120", "0.0", "2.0 MB", "0 B", "-"]);
}

#[test]
fn nothing_to_choose_from_breaks_nothing() {
    let mut status = example();
    status.backends.clear();
    let mut chosen = Chosen::default();
    for wish in [Wish::Move(1), Wish::Last, Wish::Detail, Wish::First] {
        assert!(chosen.obey(wish));
        assert!(chosen.picture(&status).detail.is_none());
    }
}
