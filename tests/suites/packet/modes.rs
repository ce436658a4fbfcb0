//! The mode of an address changes while connections to it live.

use std::net::SocketAddr;

use convey::base::TerminationReason;

use crate::{
    Test,
    kept::witnesses,
    lab::{Convey, PATIENCE, servers::Witness, wait_until},
    site::{BLIND, Plan, Port, Site, Transport, WAYS, eventually, frontend_name, vip},
    talkers::Talkers,
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_change_to_a_packet_mode_waits_for_established_connections_or_says_that_it_cuts_them,
    Convey: a_change_to_mode_proxy_waits_for_flows_or_says_that_it_cuts_them,
    Convey: an_address_that_moves_from_one_frontend_to_another_is_no_other_case,
    Convey: without_established_connections_the_mode_just_changes,
    Convey: flows_go_on_when_their_address_changes_between_passthrough_and_dsr,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);

/// All ways, in mode proxy instead of their own.
fn proxied(plan: &Plan) -> String {
    let text = plan.config();
    text.replace("mode = \"passthrough\"", "mode = \"proxy\"")
        .replace("mode = \"dsr\"", "mode = \"proxy\"")
}

/// The only frontend, on the first way's VIP or all addresses.
fn alone(name: &str, listen: &str, mode: &str, site: &Site) -> String {
    format!(
        "[packet]\nworkers = 2\nnat_ports = \"61000-65535\"\n[frontends.{name}]\nlisten_addr = \"{listen}\"\n\
         mode = \"{mode}\"\nbackend = \"b\"\n[backends.b]\n{BLIND}\nservers.a = {{ addr = \"{}\" }}\n",
        site.servers[0].addr(9)
    )
}

fn addresses() -> Vec<SocketAddr> {
    WAYS.iter().map(|way| SocketAddr::new(vip(*way), 9)).collect()
}

/// A plain reload is refused, names the way out and changes nothing; that way cuts so many and says so.
#[track_caller]
fn expect_cut_only_on_demand(convey: &Convey, config: &str, talkers: &Talkers, count: usize) {
    let generation = convey.status().config_generation;
    convey.write_config(config);
    let refused = convey.cli("reload");
    assert_eq!(refused.status.code(), Some(71), "{refused:?}");
    let said = format!("{count} established connections would be cut: ");
    assert!(
        refused.stderr.contains(&said) && refused.stderr.contains("`convey reload --cut`"),
        "{refused:?}"
    );
    talkers.expect_unbroken();
    let status = convey.status();
    assert_eq!(status.config_generation, generation);
    assert!(
        status
            .last_reload_error
            .is_some_and(|error| error.contains(&said))
    );
    let cut = convey.order("reload --cut");
    assert!(cut.contains(&format!("\ncut {count} connection(s)\n")), "{cut}");
    let said = format!("cut {count} connection(s) whose address changed");
    wait_until("the log says so", PATIENCE, || convey.stderr().contains(&said));
    eventually("all are broken", || {
        let broken: usize = talkers.broken().values().map(Vec::len).sum();
        if broken == count {
            Ok(())
        } else {
            Err(format!("{broken} of {count}"))
        }
    });
}

#[track_caller]
fn expect_served(site: &Site, addresses: &[SocketAddr]) {
    for to in addresses {
        eventually("a meeting", || Witness::meet(&site.client, *to));
    }
}

fn a_change_to_a_packet_mode_waits_for_established_connections_or_says_that_it_cuts_them() {
    let site = Site::new("topackets", 2);
    let _witnesses = witnesses(&site);
    let plan = Plan::new(&[WITNESS], &site.servers);
    site.prepare_servers(&plan);
    let convey = site.lab.convey(&site.lb, &proxied(&plan));
    let talkers = Talkers::start(&site.client, &addresses(), 3);
    expect_cut_only_on_demand(&convey, &plan.config(), &talkers, 12);
    for way in WAYS {
        let traffic = convey.traffic(&frontend_name("witness", way));
        assert_eq!(
            traffic.ended(TerminationReason::Killed),
            3,
            "{way:?}: {traffic:?}"
        );
    }
    expect_served(&site, &addresses());
    assert_eq!(told::state(&convey, &frontend_name("witness", WAYS[0])), "live");
}

fn a_change_to_mode_proxy_waits_for_flows_or_says_that_it_cuts_them() {
    let site = Site::new("toproxy", 2);
    let _witnesses = witnesses(&site);
    let plan = Plan::new(&[WITNESS], &site.servers);
    let convey = site.convey(&plan);
    let talkers = Talkers::start(&site.client, &addresses(), 3);
    expect_cut_only_on_demand(&convey, &proxied(&plan), &talkers, 12);
    expect_served(&site, &addresses());
}

fn an_address_that_moves_from_one_frontend_to_another_is_no_other_case() {
    let site = Site::new("moves", 1);
    let _witnesses = witnesses(&site);
    let to = SocketAddr::new(vip(WAYS[0]), 9);
    let forwarded = alone("forwarded", &to.to_string(), "passthrough", &site);
    // a listener of its own, and a wildcard
    for listen in [to.to_string(), "0.0.0.0:9".to_owned()] {
        let accepted = alone("accepted", &listen, "proxy", &site);
        let convey = site.lab.convey(&site.lb, &accepted);
        let talkers = Talkers::start(&site.client, &[to], 3);
        expect_cut_only_on_demand(&convey, &forwarded, &talkers, 3);
        let talkers = Talkers::start(&site.client, &[to], 3);
        expect_cut_only_on_demand(&convey, &accepted, &talkers, 3);
        expect_served(&site, &[to]);
    }
}

fn without_established_connections_the_mode_just_changes() {
    let site = Site::new("quietmodes", 1);
    let _witnesses = witnesses(&site);
    let plan = Plan::new(&[WITNESS], &site.servers);
    site.prepare_servers(&plan);
    let convey = site.lab.convey(&site.lb, &proxied(&plan));
    for _ in 0..3 {
        // they have ended, and are not held against anybody
        expect_served(&site, &addresses());
        eventually("a reload", || reload(&convey, &plan.config()));
        expect_served(&site, &addresses());
        eventually("a reload", || reload(&convey, &proxied(&plan)));
    }
}

/// A connection that the client has just ended may be open here for a moment.
fn reload(convey: &Convey, config: &str) -> Result<(), String> {
    convey.write_config(config);
    let reloaded = convey.cli("reload");
    if reloaded.status.success() {
        assert!(!reloaded.stdout.contains("cut "), "{reloaded:?}");
        return Ok(());
    }
    assert!(reloaded.stderr.contains("would be cut"), "{reloaded:?}");
    Err(reloaded.stderr)
}

fn flows_go_on_when_their_address_changes_between_passthrough_and_dsr() {
    let site = Site::new("betweenmodes", 2);
    let _witnesses = witnesses(&site);
    let plan = Plan::new(&[WITNESS], &site.servers);
    let swapped = plan
        .config()
        .replace("mode = \"passthrough\"", "mode = \"later\"")
        .replace("mode = \"dsr\"", "mode = \"passthrough\"")
        .replace("mode = \"later\"", "mode = \"dsr\"");
    // the servers answer as either mode wants it
    site.prepare_servers(&plan);
    let convey = site.lab.convey(&site.lb, &plan.config());
    let talkers = Talkers::start(&site.client, &addresses(), 5);
    for turn in 0..4 {
        convey.reload(&if turn % 2 == 0 {
            swapped.clone()
        } else {
            plan.config()
        });
        talkers.wait_round();
    }
    talkers.expect_unbroken();
}
