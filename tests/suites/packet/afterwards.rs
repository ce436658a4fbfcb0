//! What a daemon makes of what another one has left in the kernel, where it is told otherwise than that one was; and what is
//! counted still holds.

use std::net::SocketAddr;

use convey::base::PacketReason;
use nix::sys::signal::Signal;

use crate::{
    Test,
    kept::{chosen, everywhere},
    lab::{Convey, Host, PATIENCE, servers::Witness, wait_until},
    site::{DSR, PASSTHROUGH, Plan, Site, eventually, frontend_name, vip},
    survival::{Stage, WITNESS, all_talk, by_the_program, meet, open},
    talkers::Talkers,
    tests,
    told::{self, Applicant},
    xdp::has_program,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: servers_and_weights_are_others_after_a_death_and_flows_stay_where_they_are,
    Convey: limits_of_clients_hold_over_a_death,
    Convey: shares_of_nat_ports_hold_over_a_death,
    Convey: ports_of_flows_that_end_while_nobody_runs_are_given_to_new_ones,
    Convey: another_engine_after_a_restart_takes_the_program_away,
    Convey: an_interface_that_is_served_no_more_after_a_death_loses_the_program,
    Convey: another_limit_of_flows_begins_anew_and_says_so,
];

/// What the daemon says when it does not go on with what another one has left.
const NOT_TAKEN_OVER: &str = "event=\"xdp_not_taken_over\"";

/// Why, by the log.
#[track_caller]
fn refusal(convey: &Convey) -> String {
    let log = convey.stderr();
    let said = log.lines().find(|line| line.contains(NOT_TAKEN_OVER));
    said.unwrap_or_else(|| panic!("nothing is said in {log}"))
        .to_owned()
}

/// All flows of mode passthrough have ended, and say so.
#[track_caller]
fn all_are_reset(flows: &mut [Witness]) {
    for flow in flows {
        let error = flow.talk(b"anybody there?").expect_err("nobody knows it");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

fn at(ways: &[crate::site::Way]) -> Vec<SocketAddr> {
    ways.iter().map(|way| SocketAddr::new(vip(*way), 9)).collect()
}

fn servers_and_weights_are_others_after_a_death_and_flows_stay_where_they_are() {
    by_the_program(|| {
        let site = Site::new("others", 3);
        let all = Plan::new(&[WITNESS], &site.servers);
        let mut before = all.clone();
        before.servers.pop();
        let mut after = all.clone();
        after.servers.remove(0);
        after.servers[0].1 = 3;
        let mut stage = Stage::new(site, &before);
        stage.site.prepare_servers(&all);
        let talkers = Talkers::start(&stage.site.client, &everywhere(), 6);
        assert_eq!(talkers.servers().len(), 2, "{:?}", talkers.servers());
        stage.kill();
        assert_eq!(chosen(&stage.site, 10), ["a", "b"], "while it is away");
        stage.start_again(&after);
        assert_eq!(chosen(&stage.site, 10), ["b", "c"]);
        talkers.expect_unbroken();
        stage.convey.reload(&all.config());
        assert_eq!(chosen(&stage.site, 20), ["a", "b", "c"]);
        talkers.expect_unbroken();
        // and once more, with what came of it
        stage.kill();
        stage.start_again(&before);
        assert_eq!(chosen(&stage.site, 10), ["a", "b"]);
        talkers.expect_unbroken();
    });
}

fn limits_of_clients_hold_over_a_death() {
    const LIMIT: usize = 3;
    by_the_program(|| {
        let site = Site::new("limits-kept", 2);
        // of limited clients flows of mode dsr are in the memory of the daemon alone, and end with it
        let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
        plan.frontend = format!("limits.per_client = {{ connections = {LIMIT} }}");
        let mut stage = Stage::new(site, &plan);
        let to = at(&PASSTHROUGH);
        let mut held: Vec<Vec<Witness>> = (0..LIMIT)
            .map(|_| meet(&stage.site.client, &to, "at first"))
            .collect();
        stage.kill();
        stage.start_again(&plan);
        for (way, to) in PASSTHROUGH.into_iter().zip(to.clone()) {
            let reasons = [PacketReason::ClientConnections];
            let mut applicant = Applicant::new(&stage.site.client, to, Some(&stage.convey), &reasons);
            assert!(
                applicant.try_connect().is_none(),
                "{way:?}: one more than allowed"
            );
        }
        for flows in &mut held {
            all_talk(flows, "after it");
        }
        held.pop();
        for to in to {
            let reasons = [PacketReason::ClientConnections];
            let mut applicant = Applicant::new(&stage.site.client, to, Some(&stage.convey), &reasons);
            wait_until("an ended connection counts no more", PATIENCE, || {
                applicant.try_connect().is_some()
            });
        }
    });
}

fn shares_of_nat_ports_hold_over_a_death() {
    const SHARE: usize = 8;
    by_the_program(|| {
        let site = Site::new("shares-kept", 1);
        let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
        plan.passthrough = format!("max_ports_per_client = {SHARE}");
        let mut stage = Stage::new(site, &plan);
        let to = at(&PASSTHROUGH);
        let mut held: Vec<Vec<Witness>> = (0..SHARE)
            .map(|_| meet(&stage.site.client, &to, "at first"))
            .collect();
        let refused = |stage: &Stage| {
            for to in &to {
                let reasons = [PacketReason::ClientPorts];
                let mut applicant = Applicant::new(&stage.site.client, *to, Some(&stage.convey), &reasons);
                assert!(applicant.try_connect().is_none(), "{to}: one more than its share");
            }
        };
        refused(&stage);
        stage.kill();
        stage.start_again(&plan);
        refused(&stage);
        for flows in &mut held {
            all_talk(flows, "after it");
        }
        held.pop();
        for to in &to {
            eventually("the port of an ended one is given to the next", || {
                Witness::meet(&stage.site.client, *to)
            });
        }
    });
}

fn ports_of_flows_that_end_while_nobody_runs_are_given_to_new_ones() {
    const PORTS: usize = 20;
    by_the_program(|| {
        let site = Site::new("ended-away", 1);
        let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
        plan.nat_ports = "61000-61019";
        "max_ports_per_client = \"off\"".clone_into(&mut plan.passthrough);
        let mut stage = Stage::new(site, &plan);
        let to = at(&PASSTHROUGH);
        let meet_half = |stage: &Stage, when: &str| -> Vec<Witness> {
            let half = (0..PORTS / 2).flat_map(|_| meet(&stage.site.client, &to, when));
            half.collect()
        };
        let (first, mut second) = (meet_half(&stage, "at first"), meet_half(&stage, "at first"));
        stage.kill();
        for flow in first {
            flow.reset();
        }
        let mut third = meet_half(&stage, "while it is away");
        for flow in third.drain(..) {
            flow.reset();
        }
        stage.start_again(&plan);
        let mut fourth = meet_half(&stage, "after it");
        all_talk(&mut second, "after it");
        all_talk(&mut fourth, "after it");
        assert_eq!(told::flows(&stage.convey), 2 * PORTS as u64);
        for way in PASSTHROUGH {
            let frontend = frontend_name("witness", way);
            wait_until(&format!("{frontend} has what lives"), PATIENCE, || {
                open(&stage.convey, &frontend) == PORTS as u64
            });
        }
    });
}

/// What the service manager keeps for the program.
fn kept_of_the_program(convey: &Convey) -> Vec<String> {
    let mut names = convey.notify().kept();
    names.retain(|name| name.starts_with("xdp"));
    names
}

fn another_engine_after_a_restart_takes_the_program_away() {
    by_the_program(|| {
        let site = Site::new("engines", 2);
        let plan = Plan::new(&[WITNESS], &site.servers);
        let raw = Plan {
            passthrough: "engine = \"raw\"".to_owned(),
            ..plan.clone()
        };
        let mut stage = Stage::new(site, &plan);
        assert!(!kept_of_the_program(&stage.convey).is_empty());
        let direct = Talkers::start(&stage.site.client, &at(&DSR), 4);
        for (turn, plan) in [&raw, &plan].into_iter().enumerate() {
            let mut translated = meet(&stage.site.client, &at(&PASSTHROUGH), "before");
            stage.convey.signal(Signal::SIGTERM);
            assert!(stage.convey.wait_exit(PATIENCE).success());
            stage.convey.start_again(&plan.config());
            let is_there = turn == 1;
            assert_eq!(has_program(&stage.site.lb), is_there);
            wait_until("nothing of another engine is kept", PATIENCE, || {
                kept_of_the_program(&stage.convey).is_empty() != is_there
            });
            all_are_reset(&mut translated);
            stage.meet_everywhere("after it");
            direct.expect_unbroken();
        }
    });
}

/// Whether a program is attached to an interface.
fn has_program_at(host: &Host, interface: &str) -> bool {
    host.run(&format!("ip -d link show dev {interface}"))
        .contains("xdp")
}

fn an_interface_that_is_served_no_more_after_a_death_loses_the_program() {
    by_the_program(|| {
        let site = Site::new("fewer", 2);
        let behind = &site.servers[1];
        let _other_end = site.plug_in("eth1", (behind, "eth1"));
        for (host, addresses) in [(&site.lb, behind), (behind, &site.lb)] {
            host.run(&format!(
                "ip route add {}/32 dev eth1; ip -6 route add {}/128 dev eth1",
                addresses.ip4(),
                addresses.ip6()
            ));
            host.add_address("eth1", &format!("{}/128", host.ip6()));
        }
        let both = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
        let mut one = both.clone();
        one.servers.pop();
        let mut stage = Stage::new(site, &one);
        let programs = |stage: &Stage| ["eth0", "eth1"].map(|name| has_program_at(&stage.site.lb, name));
        let links = |stage: &Stage| {
            let kept = kept_of_the_program(&stage.convey);
            kept.iter().filter(|name| name.contains("link")).count()
        };
        let to = at(&PASSTHROUGH);
        let talkers = Talkers::start(&stage.site.client, &to, 3);
        for (turn, plan) in [&both, &one, &both].into_iter().enumerate() {
            let are_both = turn != 1;
            stage.kill();
            stage.start_again(plan);
            wait_until("it is where it is to be", PATIENCE, || {
                programs(&stage) == [true, are_both]
            });
            wait_until("and that is kept", PATIENCE, || {
                links(&stage) == 1 + usize::from(are_both)
            });
            talkers.expect_unbroken();
            let servers: std::collections::BTreeSet<String> = (0..20)
                .flat_map(|_| &to)
                .map(|to| eventually("a new flow", || Witness::meet(&stage.site.client, *to)).server)
                .collect();
            assert_eq!(servers.len(), 1 + usize::from(are_both), "{servers:?}");
        }
    });
}

/// Begins anew after a death: flows of mode passthrough end, those of mode dsr go on, and new ones are served.
#[track_caller]
fn begins_anew(stage: &mut Stage, direct: &Talkers, plan: &Plan) -> String {
    let mut translated = meet(&stage.site.client, &at(&PASSTHROUGH), "before");
    stage.kill();
    stage.convey.start_again(&plan.config());
    assert!(has_program(&stage.site.lb));
    all_are_reset(&mut translated);
    stage.meet_everywhere("after it");
    direct.expect_unbroken();
    wait_until("one program is kept", PATIENCE, || {
        let kept = kept_of_the_program(&stage.convey);
        kept.iter().filter(|name| name.contains("link")).count() == 1
    });
    let why = refusal(&stage.convey);
    // what came of it is taken over as ever
    stage.kill();
    stage.start_again(plan);
    stage.meet_everywhere("at last");
    why
}

fn another_limit_of_flows_begins_anew_and_says_so() {
    by_the_program(|| {
        let site = Site::new("max-flows", 2);
        let plan = Plan::new(&[WITNESS], &site.servers);
        let mut stage = Stage::new(site, &plan);
        let direct = Talkers::start(&stage.site.client, &at(&DSR), 4);
        let other = Plan {
            passthrough: "max_flows = 4096".to_owned(),
            ..plan.clone()
        };
        let why = begins_anew(&mut stage, &direct, &other);
        assert!(why.contains("max_flows"), "{why}");
    });
}
