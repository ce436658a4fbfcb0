//! What interleavings of answers, reloads and operators leave in effect.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::{state::Problem, *};
use crate::{
    access::NetworkLists,
    base::ServerName,
    config::{self, MaxRemoval, Options, Source},
    daemon::state::{State, TlsViews},
    discovery::answer::{Answer, Limits, parse},
    health::TlsToServers,
    pools::Saved,
};

/// A configuration of a number: server `s` is of the file, and its source is one of two.
fn config(number: u8) -> Config {
    let text = format!(
        "[frontends.web]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"web\"\n[backends.web]\nmax_queue = {number}\n\
         servers.s.addr = \"10.1.0.{number}:80\"\ndiscovery = {{ kind = \"file\", path = \"/{}\" }}\n",
        number % 2
    );
    let source = Source {
        name: "c.toml".to_owned(),
        bytes: text.into(),
    };
    config::load(&source, Options::default()).unwrap().config
}

fn web() -> BackendName {
    BackendName::new("web").unwrap()
}

fn answer(hosts: &BTreeSet<u8>) -> Answer {
    let lines: String = hosts.iter().map(|host| format!("10.0.0.{host}:80\n")).collect();
    let limits = Limits {
        bytes: 1 << 16,
        servers: 100,
    };
    parse(&config::AnswerFormat::Text, lines.as_bytes(), limits).unwrap()
}

fn servers(hosts: &BTreeSet<u8>) -> Arc<[Server]> {
    answer(hosts).servers.into()
}

fn reply(result: Result<Answer, Failure>) -> Reply {
    Reply {
        ttl: None,
        result,
        host: Arc::default(),
        at: Instant::now(),
    }
}

#[derive(Debug, Clone)]
enum Move {
    /// A reload tries out a configuration, for which these were discovered, if its source has answered.
    TryOut(u8, Option<BTreeSet<u8>>),
    Abandon,
    Commit,
    /// The source in effect has answered.
    Found(BTreeSet<u8>),
    Publish,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let hosts = || prop::collection::btree_set(1..6_u8, 0..5);
    let one = prop_oneof![
        2 => (0..4_u8, prop::option::of(hosts())).prop_map(|(number, found)| Move::TryOut(number, found)),
        1 => Just(Move::Abandon),
        2 => Just(Move::Commit),
        4 => hosts().prop_map(Move::Found),
        2 => Just(Move::Publish),
    ];
    prop::collection::vec(one, 0..40)
}

fn state() -> State {
    // nobody takes updates
    let (updates, _) = mpsc::channel(1);
    let mut state = State::new(
        config(0),
        &Saved::default(),
        NetworkLists::default(),
        TlsViews::default(),
        1,
        updates,
        Instant::now(),
    );
    state.start_checks();
    state
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_answers_and_reloads_do_the_last_of_each_is_in_effect(moves in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut state = state();
            let (mut number, mut hosts, mut tried) = (0, BTreeSet::new(), None);
            for step in moves {
                match step {
                    Move::TryOut(new, found) => {
                        let discovered: Discovered = found.iter().map(|hosts| (web(), servers(hosts))).collect();
                        state.try_out(&config(new), &discovered, &TlsToServers::new());
                        tried = Some((new, found, discovered));
                    }
                    Move::Abandon => {
                        state.abandon_tryout();
                        tried = None;
                    }
                    Move::Commit => {
                        let Some((new, found, discovered)) = tried.take() else { continue };
                        let mut new_config = config(new);
                        new_config.keep(state.config());
                        state.apply(new_config, &discovered, NetworkLists::default(), TlsViews::default());
                        (number, hosts) = (new, found.unwrap_or(hosts));
                    }
                    Move::Found(found) => {
                        let is_other = found != hosts;
                        assert_eq!(state.discovered(&web(), servers(&found), Instant::now()), is_other);
                        hosts = found;
                    }
                    Move::Publish => {}
                }
                state.publish(Instant::now());
                let mut expected: Vec<_> = hosts.iter().map(|host| format!("10.0.0.{host}:80")).collect();
                expected.push(format!("10.1.0.{number}:80"));
                let view = &state.snapshot().backends["web"];
                let there: Vec<_> = view.servers.iter().map(|server| server.addr.to_string()).collect();
                assert_eq!(there, expected);
                assert_eq!(view.servers.iter().filter(|server| server.is_discovered).count(), hosts.len());
            }
        });
    }
}

#[tokio::test]
async fn discovered_servers_start_to_be_checked_and_those_that_went_are_not() {
    let mut state = state();
    state.discovered(&web(), servers(&[1, 2].into()), Instant::now());
    let view = |state: &mut State| {
        state.publish(Instant::now());
        let snapshot = Arc::clone(state.snapshot());
        let servers = snapshot.backends["web"].servers.iter();
        servers
            .map(|server| (server.addr.to_string(), server.state.to_string()))
            .collect::<Vec<_>>()
    };
    let checking = |addr: &str| (addr.to_owned(), "checking".to_owned());
    assert_eq!(
        view(&mut state),
        [
            checking("10.0.0.1:80"),
            checking("10.0.0.2:80"),
            checking("10.1.0.0:80")
        ]
    );
    state.discovered(&web(), servers(&[2].into()), Instant::now());
    assert_eq!(
        view(&mut state),
        [checking("10.0.0.2:80"), checking("10.1.0.0:80")]
    );
}

#[test]
fn a_failure_keeps_the_servers_or_takes_them_as_on_failure_says_and_what_is_held_never_does() {
    let failed = reply(Err(Failure::Unreadable("gone".into())));
    let none = reply(Ok(Answer::default()));
    for (on_failure, on_failed) in [(OnFailure::Keep, None), (OnFailure::Empty, Some(0))] {
        let mut config = config(0);
        let backend = Arc::make_mut(config.backends.get_mut(&web()).unwrap());
        backend.discovery.as_mut().unwrap().on_failure = on_failure;
        let servers_by = |reply: &Reply| {
            let judged = judge(&config, &web(), reply, Some(&[])).unwrap();
            judged.servers(&config, &web()).map(|servers| servers.len())
        };
        assert_eq!(servers_by(&failed), on_failed);
        assert_eq!(servers_by(&none), None);
        assert_eq!(servers_by(&reply(Ok(answer(&[1, 2].into())))), Some(2));
    }
}

#[test]
fn what_is_wrong_with_a_source_is_told_since_when_it_is_so_until_it_is_right() {
    let (config, mut states) = (config(0), States::default());
    states.follow(&config);
    let web = web();
    let mut take = |reply: Reply| {
        let judged = judge(&config, &web, &reply, Some(&[])).unwrap();
        states.judged(&config, &web, &judged);
        states.statuses()[&web].clone()
    };
    let began = Instant::now();
    let failed = |why: &str, seconds| Reply {
        at: began + Duration::from_secs(seconds),
        ..reply(Err(Failure::Unreadable(why.to_owned())))
    };
    let problem = |status: SourceStatus| {
        let problem = status.problem.unwrap();
        (
            problem.label,
            problem.text.to_string(),
            problem.since.duration_since(began).as_secs(),
        )
    };
    assert_eq!(
        problem(take(failed("gone", 1))),
        ("unreadable", "gone".to_owned(), 1)
    );
    assert_eq!(
        problem(take(failed("gone", 2))),
        ("unreadable", "gone".to_owned(), 1)
    );
    assert_eq!(
        problem(take(failed("other", 3))),
        ("unreadable", "other".to_owned(), 1)
    );
    let held = take(Reply {
        at: began + Duration::from_secs(4),
        ..reply(Ok(Answer::default()))
    });
    assert!(held.problem.as_ref().unwrap().is_held);
    assert_eq!(problem(held).0, "too_few_servers");
    let right = take(reply(Ok(answer(&[1].into()))));
    assert_eq!(right.problem, None);
    assert!(right.answered.is_some());
}

#[test]
fn servers_of_another_source_may_all_go_until_the_new_one_has_answered() {
    let mut states = States::default();
    states.follow(&config(0));
    assert!(
        !states.is_foreign(&web()),
        "at the start what was saved is of this source"
    );
    states.follow(&config(2));
    assert!(!states.is_foreign(&web()), "the same source");
    states.follow(&config(1));
    assert!(states.is_foreign(&web()));
    let judged = |states: &mut States, reply: &Reply| {
        let judged = judge(&config(1), &web(), reply, None).unwrap();
        states.judged(&config(1), &web(), &judged);
        judged.outcome.is_ok()
    };
    assert!(!judged(
        &mut states,
        &reply(Err(Failure::Unreadable("gone".into())))
    ));
    assert!(states.is_foreign(&web()));
    assert!(judged(&mut states, &reply(Ok(answer(&[9].into())))));
    assert!(!states.is_foreign(&web()));
}

#[test]
fn only_other_addresses_of_a_packet_modes_backend_are_armed_for() {
    let mut by_packets = config(0);
    let mut pools = Pools::of(&by_packets);
    let both: BTreeSet<u8> = [1, 2].into();
    assert!(!needs_arming(&by_packets, &pools, &web(), &servers(&both)));
    let frontend = by_packets.frontends.values_mut().next().unwrap();
    Arc::make_mut(frontend).mode = config::Mode::Passthrough;
    assert!(needs_arming(&by_packets, &pools, &web(), &servers(&both)));
    pools.discover(&by_packets, &web(), servers(&both));
    let mut heavier = servers(&both).to_vec();
    heavier[0].weight = 9;
    heavier[1].name = ServerName::new("named").unwrap();
    assert!(!needs_arming(&by_packets, &pools, &web(), &heavier.into()));
    assert!(needs_arming(&by_packets, &pools, &web(), &servers(&[1].into())));
}

#[test]
fn a_held_answer_is_obeyed_when_it_is_allowed_to() {
    let mut config = config(0);
    let before = servers(&[1, 2, 3, 4].into());
    let swap = reply(Ok(answer(&[9].into())));
    let outcome = |config: &Config| judge(config, &web(), &swap, Some(&before)).unwrap().outcome;
    assert!(matches!(outcome(&config), Err(Problem::Held(_))));
    let backend = Arc::make_mut(config.backends.get_mut(&web()).unwrap());
    backend.discovery.as_mut().unwrap().max_removal = MaxRemoval::Percent(100);
    assert!(outcome(&config).is_ok());
}
