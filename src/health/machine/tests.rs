use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::config::{Check, InitialState};

const SECOND: Duration = Duration::from_secs(1);

fn check(initial: InitialState, rise: u32, fall: u32) -> HealthCheck {
    HealthCheck {
        check: Check::Tcp,
        port: None,
        source_addr: None,
        tls: None,
        interval: 10 * SECOND,
        timeout: SECOND,
        rise: NonZeroU32::new(rise).unwrap(),
        fall: NonZeroU32::new(fall).unwrap(),
        fast_interval: SECOND,
        send_proxy: false,
        share: false,
        initial,
    }
}

fn passive() -> PassiveCheck {
    PassiveCheck {
        max_failures: NonZeroU32::new(3).unwrap(),
        ejection_time: 10 * SECOND,
        max_ejection_time: 25 * SECOND,
    }
}

/// A machine with a clock that runs a second a step.
struct Server {
    machine: Machine,
    start: Instant,
    seconds: u32,
}

impl Server {
    fn new(check: Option<HealthCheck>, passive: Option<PassiveCheck>) -> Self {
        let start = Instant::now();
        Self {
            machine: Machine::new(CheckSettings { check, passive }, false, start),
            start,
            seconds: 0,
        }
    }

    fn checked(initial: InitialState, rise: u32, fall: u32) -> Self {
        Self::new(Some(check(initial, rise, fall)), Some(passive()))
    }

    fn passive_only() -> Self {
        Self::new(None, Some(passive()))
    }

    fn now(&self) -> Instant {
        self.start + self.seconds * SECOND
    }

    fn state(&self) -> ServerState {
        self.machine.health().state
    }

    /// A second later a check passes or fails; the state then.
    fn check(&mut self, passes: bool) -> ServerState {
        self.seconds += 1;
        let result = if passes {
            CheckResult::Passed
        } else {
            CheckResult::Failed("connection refused".into())
        };
        self.machine.checked(result, self.now());
        self.state()
    }

    /// The states after each of a sequence of checks: `+` passes, `-` fails; as u, d, c.
    fn checks(&mut self, results: &str) -> String {
        let states = results.chars().map(|c| self.check(c == '+'));
        states
            .map(|state| state.label().chars().next().unwrap())
            .collect()
    }

    fn connects_fail(&mut self) {
        self.machine.connects_failed(None, self.now());
    }

    /// Seconds until the ejection is over, found by waiting.
    fn wait_until_up(&mut self) -> u32 {
        let from = self.seconds;
        while self.state() != ServerState::Up {
            self.seconds += 1;
            assert!(self.seconds < from + 1_000, "never up again");
            self.machine.time_passed(self.now());
        }
        self.seconds - from
    }

    fn pause(&self, random: u64) -> Duration {
        self.machine.next_check(random).unwrap()
    }
}

#[test]
fn the_first_result_decides_alone() {
    assert_eq!(
        Server::checked(InitialState::Check, 3, 3).state(),
        ServerState::Checking
    );
    assert_eq!(Server::checked(InitialState::Check, 3, 3).checks("+"), "u");
    assert_eq!(Server::checked(InitialState::Check, 3, 3).checks("-"), "d");
}

#[test]
fn a_server_that_starts_up_needs_fall_failures_in_a_row_to_go_down() {
    assert_eq!(Server::checked(InitialState::Up, 2, 3).checks("--+---"), "uuuuud");
}

#[test]
fn a_server_that_is_down_needs_rise_successes_in_a_row_to_come_up() {
    assert_eq!(
        Server::checked(InitialState::Down, 3, 1).checks("++-+++"),
        "dddddu"
    );
}

#[test]
fn one_result_is_enough_where_rise_and_fall_are_1() {
    assert_eq!(Server::checked(InitialState::Up, 1, 1).checks("-+-+"), "dudu");
}

#[test]
fn a_check_that_could_not_be_made_changes_no_state_but_is_told() {
    let mut server = Server::checked(InitialState::Up, 1, 1);
    let now = server.now();
    server
        .machine
        .checked(CheckResult::NotMade("too many open files".into()), now);
    assert_eq!(server.state(), ServerState::Up);
    assert_eq!(
        server.machine.health().reason.as_deref(),
        Some("too many open files")
    );
    server.check(true);
    assert_eq!(server.machine.health().reason, None);
}

#[test]
fn the_reason_is_the_last_failures_text_until_the_server_is_up_again() {
    let mut server = Server::checked(InitialState::Up, 2, 2);
    server.checks("-");
    assert_eq!(
        server.machine.health().reason.as_deref(),
        Some("connection refused")
    );
    server.checks("-+");
    assert_eq!(
        server.machine.health().reason.as_deref(),
        Some("connection refused")
    );
    server.checks("+");
    assert_eq!(server.machine.health().reason, None);
}

#[test]
fn the_time_of_a_state_is_that_of_the_change_not_of_the_last_check() {
    let mut server = Server::checked(InitialState::Check, 1, 2);
    server.checks("+++-+-+");
    assert_eq!(server.machine.health().since, server.start + SECOND);
    server.checks("--+");
    assert_eq!(server.machine.health().since, server.now());
}

#[test]
fn a_slow_start_begins_when_a_server_comes_back_and_not_at_its_first_check() {
    let mut server = Server::checked(InitialState::Check, 1, 1);
    server.checks("+");
    assert_eq!(server.machine.health().ramp_from, None);
    server.checks("-+");
    assert_eq!(server.machine.health().ramp_from, Some(server.now()));
    server.checks("-");
    assert_eq!(server.machine.health().ramp_from, None);

    let mut server = Server::checked(InitialState::Down, 2, 1);
    server.checks("++");
    assert_eq!(
        (server.state(), server.machine.health().ramp_from),
        (ServerState::Up, None)
    );

    let settings = server.machine.settings.clone();
    let mut back = Machine::new(settings, true, server.now());
    back.checked(CheckResult::Passed, server.now());
    back.checked(CheckResult::Passed, server.now());
    assert_eq!(
        back.health().ramp_from,
        Some(server.now()),
        "back from maintenance"
    );
}

#[test]
fn checks_are_faster_while_the_state_is_changing() {
    let middle = u64::MAX / 2;
    let mut server = Server::checked(InitialState::Check, 2, 2);
    let about = |server: &Server| server.pause(middle).as_secs_f64().round();
    assert!(
        (about(&server) - 1.0).abs() < f64::EPSILON,
        "first result outstanding"
    );
    let mut seen = Vec::new();
    for passes in [true, false, false, false, true, true] {
        server.check(passes);
        seen.push(about(&server) as u32);
    }
    assert_eq!(seen, [10, 1, 10, 10, 1, 10]);
}

#[test]
fn the_pause_is_jittered_by_a_tenth_either_way() {
    let mut server = Server::checked(InitialState::Check, 1, 1);
    server.check(true);
    assert_eq!(server.pause(0), 9 * SECOND);
    assert_eq!(server.pause(u64::MAX), 11 * SECOND);
}

#[test]
fn failing_connects_take_a_server_out_for_a_time_that_grows_with_each_ejection() {
    let mut server = Server::passive_only();
    assert_eq!(server.state(), ServerState::Up);
    let mut times = Vec::new();
    for _ in 0..4 {
        server.connects_fail();
        assert_eq!(server.state(), ServerState::Down);
        times.push(server.wait_until_up());
    }
    assert_eq!(times, [10, 20, 25, 25], "n times 10 s, at most 25 s");
}

#[test]
fn ejections_are_forgotten_while_the_server_is_up() {
    let mut server = Server::passive_only();
    for _ in 0..2 {
        server.connects_fail();
        server.wait_until_up();
    }
    server.seconds += 11;
    server.connects_fail();
    assert_eq!(server.wait_until_up(), 20, "one of two is forgotten after 10 s");
    server.seconds += 3_600;
    server.connects_fail();
    assert_eq!(server.wait_until_up(), 10, "all are forgotten after an hour");
}

#[test]
fn an_ejection_says_why_and_when_it_will_end() {
    let mut server = Server::passive_only();
    server.connects_fail();
    let reason = server.machine.health().reason.as_deref();
    assert_eq!(reason, Some("3 consecutive connection failures; ejected for 10s"));
    assert_eq!(server.machine.wake_at(), Some(server.now() + 10 * SECOND));
}

#[test]
fn reports_about_a_server_that_is_out_already_do_not_prolong_its_time() {
    let mut server = Server::passive_only();
    server.connects_fail();
    server.seconds += 5;
    server.connects_fail();
    assert_eq!(server.wait_until_up(), 5);
}

#[test]
fn an_ejected_server_that_is_checked_needs_rise_successes_however_long_its_ejection_is() {
    let mut server = Server::checked(InitialState::Up, 2, 3);
    for turn in 0..5 {
        server.connects_fail();
        assert_eq!(server.checks("++"), "du", "ejection {turn}");
    }
    server.connects_fail();
    assert_eq!(
        server.checks(&"-".repeat(40)),
        "d".repeat(40),
        "the time alone is not enough"
    );
    assert_eq!(server.checks("+-++"), "dddu");
}

#[test]
fn a_server_is_down_by_its_ejection_alone_while_no_check_fails() {
    let mut server = Server::checked(InitialState::Up, 2, 3);
    let ejected = |server: &Server| server.machine.health().is_ejected;
    server.connects_fail();
    assert!(ejected(&server));
    for (passes, alone) in [(true, true), (false, false), (false, false), (true, true)] {
        server.check(passes);
        assert_eq!(ejected(&server), alone, "after a check that passed: {passes}");
    }
    server.check(true);
    assert_eq!((server.state(), ejected(&server)), (ServerState::Up, false));

    server.check(false);
    server.connects_fail();
    assert!(!ejected(&server), "its check had begun to fail");
    let mut server = Server::checked(InitialState::Up, 1, 1);
    server.check(false);
    server.connects_fail();
    assert!(!ejected(&server), "it was down before");
}

#[test]
fn without_a_passive_check_failing_connects_do_nothing() {
    let mut server = Server::new(Some(check(InitialState::Up, 1, 1)), None);
    server.connects_fail();
    assert_eq!(server.state(), ServerState::Up);
}

#[test]
fn new_settings_keep_the_state() {
    let mut server = Server::checked(InitialState::Check, 1, 1);
    server.check(true);
    let settings = CheckSettings {
        check: Some(check(InitialState::Down, 5, 5)),
        passive: None,
    };
    server.machine.reconfigure(settings, server.now());
    assert_eq!(server.state(), ServerState::Up);
    assert_eq!(server.checks("-----"), "uuuud", "and count from now on");
}

#[test]
fn a_server_whose_checks_are_turned_off_is_up() {
    for first in ["", "-", "+"] {
        let mut server = Server::checked(InitialState::Check, 1, 1);
        server.checks(first);
        server.machine.reconfigure(
            CheckSettings {
                check: None,
                passive: None,
            },
            server.now(),
        );
        assert_eq!(server.state(), ServerState::Up, "after {first:?}");
        assert_eq!(server.machine.next_check(0), None);
    }
    let mut ejected = Server::checked(InitialState::Up, 1, 1);
    ejected.connects_fail();
    let settings = CheckSettings {
        check: None,
        passive: Some(passive()),
    };
    ejected.machine.reconfigure(settings, ejected.now());
    assert_eq!(ejected.state(), ServerState::Down, "but its ejection goes on");
    assert_eq!(ejected.wait_until_up(), 10);
}

proptest! {
    #[test]
    fn the_state_changes_exactly_after_so_many_results_in_a_row(
        rise in 1_u32..5, fall in 1_u32..5, starts_up: bool,
        results in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let initial = if starts_up { InitialState::Up } else { InitialState::Down };
        let mut server = Server::checked(initial, rise, fall);
        let mut since_change: Vec<bool> = Vec::new();
        for passes in results {
            let was_up = server.state() == ServerState::Up;
            let is_up = server.check(passes) == ServerState::Up;
            since_change.push(passes);
            let needed = if was_up { fall } else { rise } as usize;
            let last = &since_change[since_change.len().saturating_sub(needed)..];
            let must_change = last.len() == needed && last.iter().all(|passed| *passed != was_up);
            prop_assert_eq!(is_up != was_up, must_change);
            if must_change {
                since_change.clear();
            }
        }
    }

    #[test]
    fn an_ejected_server_is_never_up_before_its_time_or_rise_successes_and_always_comes_back(
        events in prop::collection::vec((0_u8..4, 0_u32..30), 0..100), is_checked: bool,
    ) {
        let mut server = if is_checked {
            Server::checked(InitialState::Up, 2, 2)
        } else {
            Server::passive_only()
        };
        let mut earliest = server.now();
        let (mut passed, mut was_up) = (0, true);
        for (event, wait) in events {
            server.seconds += wait;
            match event {
                0 if server.state() == ServerState::Up => {
                    server.connects_fail();
                    earliest = server.now() + 10 * SECOND;
                    passed = 0;
                }
                0 => server.connects_fail(),
                1 => { server.check(true); passed += 1; }
                2 => { server.check(false); passed = 0; }
                _ => server.machine.time_passed(server.now()),
            }
            let may_come_up = if is_checked { passed >= 2 } else { server.now() >= earliest };
            let is_up = server.state() == ServerState::Up;
            prop_assert!(!is_up || was_up || may_come_up);
            was_up = is_up;
        }
        // the longest ejection is 25 s
        server.seconds += 25;
        server.machine.time_passed(server.now());
        prop_assert!(!is_checked || server.checks("++").ends_with('u'));
        prop_assert_eq!(server.state(), ServerState::Up);
    }
}
