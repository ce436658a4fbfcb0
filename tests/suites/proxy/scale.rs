//! Many servers.

use std::fmt::Write as _;

use crate::{
    Test,
    lab::{
        Convey, Lab, PATIENCE,
        fleet::{Fleet, control_cpu},
        wait_until,
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    servers_that_go_down_together_cost_in_proportion_to_their_number,
    the_loop_answers_while_thousands_of_servers_go_down,
];

/// One backend of that many servers, all in the fleet, each checked once in an interval.
fn config(servers: usize, interval: &str) -> String {
    let mut text = format!(
        "[global]\nworkers = 1\nwatch_config = false\n\
         [frontends.web]\nlisten_addr = \"127.0.0.1:80\"\nbackend = \"web\"\n\
         [backends.web]\n\
         health_check = {{ interval = \"{interval}\", fall = 1, rise = 1, initial = \"up\" }}\n"
    );
    for index in 0..servers {
        let _ = writeln!(text, "servers.s{index} = {{ addr = \"{}\" }}", Fleet::addr(index));
    }
    text
}

/// Waits until so many servers of them all are eligible, as the status line has it: the daemon is not asked.
#[track_caller]
fn wait_eligible(convey: &Convey, eligible: usize, servers: usize) {
    let words = format!(", {eligible} of {servers} ");
    wait_until(&words, PATIENCE, || {
        let said = convey.notify().assignments();
        let last = said.iter().rev().find(|line| line.starts_with("STATUS="));
        last.is_some_and(|line| line.contains(&words))
    });
}

/// CPU time of the control thread from the moment that servers stop until the last of them is known to be down.
fn cost_of_an_outage(servers: usize) -> f64 {
    let lab = Lab::new("outage");
    let lb = lab.host("lb");
    let mut fleet = Fleet::start(&lb);
    let convey = lab.convey(&lb, &config(servers, "1s"));
    wait_eligible(&convey, servers, servers);
    let before = control_cpu(convey.pid());
    fleet.down();
    wait_eligible(&convey, 0, servers);
    (control_cpu(convey.pid()) - before).as_secs_f64()
}

fn servers_that_go_down_together_cost_in_proportion_to_their_number() {
    let (mut half, mut whole) = (f64::INFINITY, f64::INFINITY);
    // the least of some: other work on this machine only adds
    for _ in 0..5 {
        half = half.min(cost_of_an_outage(2_000));
        whole = whole.min(cost_of_an_outage(4_000));
        eprintln!("2,000 servers go down: {half:.3} s of the control thread, 4,000: {whole:.3} s");
        if whole <= 2.6 * half {
            return;
        }
    }
    panic!("4,000 servers cost {:.1} times what 2,000 do", whole / half);
}

fn the_loop_answers_while_thousands_of_servers_go_down() {
    let servers = 3_000;
    let lab = Lab::new("answers");
    let lb = lab.host("lb");
    let mut fleet = Fleet::start(&lb);
    let convey = lab.convey(&lb, &config(servers, "5s"));
    wait_eligible(&convey, servers, servers);
    fleet.down();
    // an answer from the midst of the outage: some are down, some are not yet
    wait_until("a status from the midst of it", PATIENCE, || {
        let web = &convey.status().backends["web"];
        assert!(web.eligible > 0, "no answer came before the last server was down");
        web.eligible < servers
    });
    wait_eligible(&convey, 0, servers);
    let says = |words: &str| convey.stderr().matches(words).count();
    let logged = |words: &str| {
        wait_until(words, PATIENCE, || says(words) > 0);
    };
    logged("backend web is down: none of its 3000 servers is eligible");
    fleet.up();
    wait_eligible(&convey, servers, servers);
    logged("backend web is up: ");
    assert_eq!((says("backend web is down"), says("backend web is up")), (1, 1));
}
