//! Addresses and interfaces come and go; modes live side by side.

use std::net::SocketAddr;

use convey::base::PacketReason;

use crate::{
    Test,
    kept::{everywhere, witnesses},
    lab::{
        Convey, Family, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{BLIND, Plan, Port, Site, Transport, WAYS, eventually, frontend_name, vip, vip_prefix},
    talkers::Talkers,
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_vip_on_no_interface_waits_and_goes_live_when_it_appears,
    Convey: a_vip_that_went_away_serves_no_new_client_and_its_flows_go_on,
    Convey: a_server_that_is_this_host_is_refused_and_said_when_it_becomes_so,
    Convey: an_interface_that_vanishes_and_returns_is_served_again,
    Any: servers_behind_a_second_interface_are_reached,
    Convey: a_server_that_gets_a_new_link_address_is_found_again,
    Convey: proxy_and_packet_frontends_live_in_one_file,
    Convey: a_vip_on_the_loopback_interface_is_served_when_the_frontend_names_another,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn a_vip_on_no_interface_waits_and_goes_live_when_it_appears() {
    let site = Site::without_vips("waiting", 1);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    for _ in 0..2 {
        for way in WAYS {
            told::wait_state(&convey, &frontend_name("witness", way), "waiting");
        }
        for way in WAYS {
            site.lb.add_address("eth0", &vip_prefix(way));
        }
        for way in WAYS {
            told::wait_state(&convey, &frontend_name("witness", way), "live");
            let to = SocketAddr::new(vip(way), 9);
            eventually("a meeting", || Witness::meet(&site.client, to));
        }
        for way in WAYS {
            site.lb.run(&format!("ip addr del {} dev eth0", vip_prefix(way)));
        }
        // the client must ask anew who has it
        site.client
            .run("ip neigh flush dev eth0; ip -6 neigh flush dev eth0");
    }
    told::wait_state(&convey, &frontend_name("witness", WAYS[0]), "waiting");
}

fn a_vip_that_went_away_serves_no_new_client_and_its_flows_go_on() {
    let site = Site::new("went-away", 1);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    let mut flows: Vec<Witness> = (WAYS.iter())
        .map(|way| Witness::meet(&site.client, SocketAddr::new(vip(*way), 9)).expect("a meeting"))
        .collect();
    // as clients on this segment go on sending by what they know, though nobody answers for the address any more
    let mac = site.lb.run("ip -br link show eth0 | awk '{ print $3 }'");
    for way in WAYS {
        site.client.run(&format!(
            "ip neigh replace {} lladdr {} dev eth0 nud permanent",
            vip(way),
            mac.trim()
        ));
        site.lb.run(&format!("ip addr del {} dev eth0", vip_prefix(way)));
    }
    for way in WAYS {
        told::wait_state(&convey, &frontend_name("witness", way), "waiting");
        let to = SocketAddr::new(vip(way), 9);
        let mut applicant = told::Applicant::new(&site.client, to, Some(&convey), &[PacketReason::VipAbsent]);
        assert!(applicant.try_connect().is_none(), "{way:?}");
    }
    for flow in &mut flows {
        flow.talk(b"still there").expect("flows go on");
    }
    for way in WAYS {
        site.lb.add_address("eth0", &vip_prefix(way));
        told::wait_state(&convey, &frontend_name("witness", way), "live");
        eventually("a meeting", || {
            Witness::meet(&site.client, SocketAddr::new(vip(way), 9))
        });
    }
}

fn a_server_that_is_this_host_is_refused_and_said_when_it_becomes_so() {
    let site = Site::new("local", 1);
    let config = |server: &str| {
        format!(
            "[frontends.f]\nlisten_addr = \"{}\"\nmode = \"passthrough\"\nbackend = \"b\"\n\
             [backends.b]\n{BLIND}\nservers.s = {{ addr = \"{server}:9\" }}\n",
            SocketAddr::new(vip(WAYS[0]), 9)
        )
    };
    let own = site.lb.ip4().to_string();
    let mut refused = Convey::launch_beside(&site.lb, "refused", &config(&own));
    assert_eq!(refused.wait_exit(PATIENCE).code(), Some(78));
    let said = format!("packets cannot be forwarded to server `s`: {own} is an address of this host");
    assert!(refused.stderr().contains(&said), "{}", refused.stderr());
    let checked = refused.tool("check");
    assert!(
        checked.status.success() && checked.stderr.contains(&said),
        "another host's file may be checked here: {checked:?}"
    );

    let convey = site.lab.convey(&site.lb, &config("10.77.0.199"));
    convey.write_config(&config(&own));
    let failed = convey.cli("reload");
    assert!(
        !failed.status.success() && failed.stderr.contains(&said),
        "{failed:?}"
    );
    site.lb.add_address("eth0", "10.77.0.199/32");
    wait_until("status says so", PATIENCE, || {
        convey
            .order("status")
            .contains("it is an address of this host: use mode \"proxy\" for a local server")
    });
}

fn an_interface_that_vanishes_and_returns_is_served_again() {
    let site = Site::without_vips("vanish", 1);
    let _witnesses = witnesses(&site);
    let near = site.lab.host("near");
    // a client on a cable of its own, which is where the VIPs are
    let plug_in = || {
        let other_end = site.plug_in("front0", (&near, "front0"));
        for way in WAYS {
            site.lb.add_address("front0", &vip_prefix(way));
        }
        site.lb.add_address("front0", "10.80.0.1/24");
        near.add_address("front0", "10.80.0.2/24");
        site.lb.add_address("front0", "fd80::1/64");
        near.add_address("front0", "fd80::2/64");
        for way in WAYS {
            let family = if way.1 == Family::V6 { "-6" } else { "" };
            near.run(&format!(
                "ip {family} route replace {} dev front0",
                vip_prefix(way)
            ));
        }
        other_end
    };
    near.run("ip addr flush dev eth0 scope global");
    let mut other_ends = vec![plug_in()];
    let passthrough = &WAYS[..2];
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers).by(passthrough));
    let meet_all = |when: &str| {
        for way in passthrough {
            let to = SocketAddr::new(vip(*way), 9);
            let mut witness = eventually(&format!("{when}, {way:?}"), || Witness::meet(&near, to));
            witness.talk(b"hello").expect("talk");
        }
    };
    meet_all("at first");
    for turn in 0..3 {
        site.lb.run("ip link del front0");
        told::wait_state(&convey, &frontend_name("witness", WAYS[0]), "waiting");
        other_ends.push(plug_in());
        told::wait_state(&convey, &frontend_name("witness", WAYS[0]), "live");
        meet_all(&format!("after return {turn}"));
    }
    // down and up again, the addresses stay
    site.lb.run("ip link set front0 down");
    told::wait_state(&convey, &frontend_name("witness", WAYS[0]), "waiting");
    site.lb.run("ip link set front0 up");
    for way in passthrough.iter().filter(|way| way.1 == Family::V6) {
        // the kernel itself forgets IPv6 addresses of an interface that goes down
        site.lb.try_run(&format!(
            "ip addr add {} dev front0 nodad preferred_lft 0",
            vip_prefix(*way)
        ));
    }
    site.lb
        .try_run("ip addr add fd80::1/64 dev front0 nodad; ip addr add fe80::2/64 dev front0 nodad");
    meet_all("after down and up");
}

fn servers_behind_a_second_interface_are_reached() {
    let site = Site::new("second", 1);
    let server = &site.servers[0];
    let _other_end = site.plug_in("eth1", (server, "eth1"));
    site.lb.run(&format!(
        "ip route add {}/32 dev eth1; ip -6 route add {}/128 dev eth1",
        server.ip4(),
        server.ip6()
    ));
    server.add_address("eth1", &format!("{}/128", server.ip6()));
    server.run(&format!(
        "ip route add {}/32 dev eth1; ip -6 route add {}/128 dev eth1",
        site.lb.ip4(),
        site.lb.ip6()
    ));
    site.lb.add_address("eth1", &format!("{}/128", site.lb.ip6()));
    let _witnesses = witnesses(&site);
    let _balancer = site.balance(&Plan::new(&[WITNESS], &site.servers));
    for way in WAYS {
        let to = SocketAddr::new(vip(way), 9);
        let mut witness = eventually(&format!("{way:?}"), || Witness::meet(&site.client, to));
        witness.talk(&[7; 20_000]).expect("talk");
    }
}

fn a_server_that_gets_a_new_link_address_is_found_again() {
    let site = Site::new("newmac", 1);
    let server = &site.servers[0];
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    let talkers = Talkers::start(&site.client, &everywhere(), 2);
    // as when a standby takes the address over, which says so by itself for IPv4 (gratuitous ARP) as far as arp_notify goes
    server.run("echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; echo 1 > /proc/sys/net/ipv6/conf/eth0/ndisc_notify; ip link set eth0 address 02:00:00:00:00:77");
    wait_until("new connections reach it", PATIENCE, || {
        everywhere()
            .iter()
            .all(|to| Witness::meet(&site.client, *to).is_ok())
    });
    drop(talkers);
    drop(convey);
}

fn proxy_and_packet_frontends_live_in_one_file() {
    let site = Site::new("mixed", 1);
    let server = &site.servers[0];
    let _witnesses = witnesses(&site);
    let _proxied = TcpServer::witness(server, server.addr(19), "proxied");
    let _echo = [server.addr(7), server.addr6(7)].map(|addr| UdpServer::echo(server, addr, ""));
    // the same address and port number by TCP in proxy mode as by UDP in packet modes
    let proxied = SocketAddr::new(vip(WAYS[0]), 7);
    let config = Plan::new(&[WITNESS, ECHO], &site.servers).config()
        + &format!(
            "[frontends.proxied]\nlisten_addr = \"{proxied}\"\nmode = \"proxy\"\nbackend = \"proxied\"\n\
             [backends.proxied]\nhealth_check = {{ enabled = false }}\nservers.a = {{ addr = \"{}\" }}\n",
            server.addr(19)
        );
    site.prepare_servers(&Plan::new(&[WITNESS, ECHO], &site.servers));
    let convey = site.lab.convey(&site.lb, &config);
    for turn in 0..2 {
        for to in everywhere() {
            Witness::meet(&site.client, to).expect("by packets");
        }
        for way in WAYS {
            let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
            assert_eq!(client.ask(b"?").expect("an echo"), b"?", "{way:?}");
        }
        let met = Witness::meet(&site.client, proxied).expect("by proxy");
        assert_eq!(
            (met.server.as_str(), met.seen.ip()),
            ("proxied", site.lb.addr(0).ip())
        );
        if turn == 0 {
            convey.reload(&config);
        }
    }
}

fn a_vip_on_the_loopback_interface_is_served_when_the_frontend_names_another() {
    let site = Site::without_vips("loopback", 1);
    let _witnesses = witnesses(&site);
    for way in WAYS {
        site.lb.add_address("lo", &vip_prefix(way));
    }
    for host in [&site.client, &site.servers[0]] {
        for way in WAYS {
            let (family, lb) = match way.1 {
                Family::V4 => ("", site.lb.addr(0).ip()),
                Family::V6 => ("-6", site.lb.addr6(0).ip()),
            };
            host.run(&format!("ip {family} route add {} via {lb}", vip_prefix(way)));
        }
    }
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    plan.frontend = "interface = \"eth0\"".to_owned();
    let convey = site.convey(&plan);
    for way in WAYS {
        told::wait_state(&convey, &frontend_name("witness", way), "live");
        Witness::meet(&site.client, SocketAddr::new(vip(way), 9))
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}
