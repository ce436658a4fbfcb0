//! The picture on a terminal of 80 columns, and the order of what is in it.

use unicode_width::UnicodeWidthStr;

use super::*;

#[test]
fn on_80_columns_everything_that_says_why_stays() {
    let look = Look {
        width: Some(80),
        ..Look::default()
    };
    assert_drawn(
        &super::super::draw(&example(), &look),
        "
convey 1.0.0-dev  pid 4242, running, up 3h 12m, 2 workers
configuration /etc/convey/convey.toml (generation 3)

FRONTEND  LISTENS ON  MODE   BACKEND  CONNS  MAX   TOTAL      IN     OUT  NOTE
mail      0.0.0.0:25  proxy  empty       10   10      10     0 B     0 B  full
web       0.0.0.0:80  proxy  web         17    -  122219  181 MB  8.3 GB
          [::]:80

BACKEND/SERVER  ADDRESS           STATE             SINCE  WEIGHT  CONNS  FAILED
empty           round_robin       0 of 0 eligible                      0       0
    no servers
web             round_robin       2 of 5 eligible                     18       0
    2 connections waiting for a server
  a             10.0.0.1:80       up                2h 3m       1     12       0
  b             10.0.0.2:80       down                14s       1      0       3
    connect: Connection refused (os error 111)
  c             [2001:db8::3]:80  draining         3m 12s       3      5       0
    override: draining, weight 3 (configured 1)
  d             10.0.0.4:80       up                  10s       1      1       0
    slow start, 35 %
  e             10.0.0.5:80       up                  10s       1      0       0
    standby, priority 2
",
    );
}

#[test]
fn a_selection_still_says_how_many_servers_there_are() {
    let mut status = example();
    let selection = crate::cli::select::Selection {
        names: &[],
        down: true,
    };
    let totals = selection.apply(&mut status).expect("no names");
    let look = Look {
        selected: totals.as_ref(),
        ..Look::default()
    };
    let drawn = super::super::draw(&status, &look);
    assert!(
        drawn.contains("2 of 5 eligible") && drawn.contains("  b  "),
        "{drawn}"
    );
    status.backends.clear();
    status.frontends.clear();
    let nothing = super::super::draw(&status, &look);
    assert!(nothing.ends_with("\nnothing is down\n"), "{nothing}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [60, 80, 100, 132] {
        for earlier in [None, Some(example())] {
            let earlier = earlier.as_ref().map(|status| Earlier { status, seconds: 1.0 });
            let look = Look {
                earlier,
                width: Some(width),
                ..Look::default()
            };
            let drawn = super::super::draw(&example(), &look);
            for line in drawn.lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
            assert!(drawn.contains("Connection refused"), "{drawn}");
            assert!(drawn.contains("FAILED"), "{drawn}");
        }
    }
}

#[test]
fn names_are_in_the_order_of_their_numbers_and_what_is_down_can_come_first() {
    let mut status = example();
    let up = || server("10.0.0.1:80", ServerState::Up, 1.0, Traffic::default());
    let down = || server("10.0.0.2:80", ServerState::Down, 1.0, Traffic::default());
    if let Some(web) = status.backends.get_mut("web") {
        let servers = [("s10", down()), ("s1", up()), ("s2", up()), ("s9", down())];
        web.servers = servers.map(|(name, server)| (server_name(name), server)).into();
    }
    let order = |down_first| {
        let look = Look {
            down_first,
            ..Look::default()
        };
        let drawn = super::super::draw(&status, &look);
        let names = drawn.lines().filter_map(|line| line.strip_prefix("  s"));
        let names: Vec<_> = names
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect();
        names.join(" ")
    };
    assert_eq!(order(false), "1 2 9 10");
    assert_eq!(order(true), "9 10 1 2");
}
