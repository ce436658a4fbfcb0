//! Frontends with a range of ports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Test,
    lab::{
        Convey, Family, Host, PATIENCE,
        servers::{TcpServer, Witness},
        wait_until,
    },
    site::{DSR, Mode, PASSTHROUGH, Site, WAYS, Way, vip},
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_client_reaches_one_server_on_all_ports_of_a_range_each_as_far_above_its_first,
    Convey: servers_answer_for_a_range_after_the_script_of_the_load_balancer,
    Convey: connections_live_on_while_their_range_widens_and_narrows,
];

/// The servers' port that the first of the range leads to.
const FROM: u16 = 7_000;

/// A range of ports of some ways' VIPs.
fn config(site: &Site, ways: &[Way], ports: &str) -> String {
    let mut text = "[packet]\nworkers = 2\n".to_owned();
    for way in ways {
        let (mode, family) = *way;
        let name = format!("{}-{}", mode.label(), if family == Family::V4 { 4 } else { 6 });
        let listen = SocketAddr::new(vip(*way), 0).to_string();
        let listen = listen.strip_suffix('0').expect("port 0");
        text += &format!(
            "[frontends.{name}]\nlisten_addr = \"{listen}{ports}\"\nmode = \"{}\"\nbackend = \"{name}\"\n\
             [backends.{name}]\ndsr_method = \"nft\"\nhealth_check.enabled = false\n",
            mode.label()
        );
        for host in &site.servers {
            let addr = host.addr_of(family, FROM);
            text += &format!("servers.{} = {{ addr = \"{addr}\" }}\n", host.name());
        }
    }
    text
}

/// Witnesses on these ports of every server, called by server and port.
fn serve(site: &Site, ports: std::ops::RangeInclusive<u16>) -> Vec<TcpServer> {
    let places = site.servers.iter().flat_map(|host| {
        let ports = ports.clone();
        ports.flat_map(move |port| Family::ALL.map(|family| (host, host.addr_of(family, port))))
    });
    let witness = |(host, addr): (&Host, SocketAddr)| {
        TcpServer::witness(host, addr, &format!("{}:{}", host.name(), addr.port()))
    };
    places.map(witness).collect()
}

/// Has every server answer as the load balancer's script says.
fn run_scripts(site: &Site, convey: &Convey, ways: &[Way]) {
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/backend");
    for (mode, family) in ways {
        let name = format!("{}-{}", mode.label(), if *family == Family::V4 { 4 } else { 6 });
        for host in &site.servers {
            let command = format!("backend-script {name} {}", host.name());
            let script = convey.tool(&command).succeeded(&command, "lb");
            let file = host.path(&format!("{name}.sh"));
            std::fs::write(&file, script).expect("the script");
            host.run(&format!(
                "PATH={setup}:$PATH CONVEY_BACKEND_CONF={} CONVEY_BACKEND_STATE={} sh {} --no-boot",
                host.path("conf").display(),
                host.path("state").display(),
                file.display()
            ));
        }
    }
}

#[track_caller]
fn meet(site: &Site, way: Way, port: u16) -> Witness {
    let to = SocketAddr::new(vip(way), port);
    Witness::meet(&site.client, to).unwrap_or_else(|error| panic!("{way:?}, port {port}: {error}"))
}

/// The server and its port of a witness.
fn place(witness: &Witness) -> (String, u16) {
    let (server, port) = witness.server.split_once(':').expect("server and port");
    (server.to_owned(), port.parse().expect("a port"))
}

/// Each port of a range leads to its own, and all of them to one server.
#[track_caller]
fn expect_range(site: &Site, way: Way, ports: std::ops::RangeInclusive<u16>) {
    let mut servers = BTreeSet::new();
    for port in ports {
        let mut witness = meet(site, way, port);
        let (server, own) = place(&witness);
        assert_eq!(own, port - 9_000 + FROM, "{way:?}");
        if way.0 == Mode::Dsr {
            assert_eq!(
                witness.seen,
                witness.stream().local_addr().expect("an own address")
            );
        }
        witness.talk(b"hello").expect("talk");
        servers.insert(server);
    }
    assert_eq!(servers.len(), 1, "{way:?}: {servers:?} serve one client");
}

fn a_client_reaches_one_server_on_all_ports_of_a_range_each_as_far_above_its_first() {
    let site = Site::new("range", 3);
    let _servers = serve(&site, FROM..=FROM + 10);
    let convey = site
        .lab
        .convey(&site.lb, &config(&site, &PASSTHROUGH, "9000-9010"));
    for way in PASSTHROUGH {
        expect_range(&site, way, 9_000..=9_010);
        for outside in [8_999, 9_011] {
            let to = SocketAddr::new(vip(way), outside);
            site.client.try_connect(to).expect_err("the kernel refuses it");
        }
        // what is told beforehand is what happens
        let to = SocketAddr::new(vip(way), 9_007);
        let (told, answer) = told::explain(&convey, "tcp", site.client.addr_of(way.1, 20_000), to);
        let (server, _) = place(&meet(&site, way, 9_000));
        assert_eq!(told, Some(server), "{answer}");
        let port = format!(":{}", FROM + 7);
        assert!(
            answer["server_addr"]
                .as_str()
                .is_some_and(|addr| addr.ends_with(&port)),
            "{answer}"
        );
    }
    let rules = site
        .lb
        .run("iptables -t raw -S CONVEY; ip6tables -t raw -S CONVEY");
    assert_eq!(rules.matches("--dport 9000:9010").count(), 2, "{rules}");
    // a rule for each server and range of NAT ports, whatever the ports
    assert_eq!(
        rules.matches(&format!("--sport {FROM}:{}", FROM + 10)).count(),
        12,
        "{rules}"
    );
    let status = convey.order("status");
    assert_eq!(status.matches(":9000-9010").count(), 2, "{status}");
}

fn servers_answer_for_a_range_after_the_script_of_the_load_balancer() {
    let site = Site::new("range-dsr", 2);
    let _servers = serve(&site, FROM..=FROM + 10);
    let convey = site.lab.convey(&site.lb, &config(&site, &DSR, "9000-9010"));
    run_scripts(&site, &convey, &DSR);
    for way in DSR {
        expect_range(&site, way, 9_000..=9_010);
    }
}

fn connections_live_on_while_their_range_widens_and_narrows() {
    let site = Site::new("range-reload", 2);
    let _servers = serve(&site, FROM..=FROM + 20);
    let plan = |ports| config(&site, &WAYS, ports);
    let convey = site.lab.convey(&site.lb, &plan("9000-9020"));
    run_scripts(&site, &convey, &DSR);
    convey.reload(&plan("9000-9010"));
    let mut kept: Vec<_> = (WAYS.iter())
        .flat_map(|way| [9_002, 9_008].map(|port| (*way, meet(&site, *way, port))))
        .collect();
    let mut talk = |when: &str| {
        for (way, witness) in &mut kept {
            witness
                .talk(b"still here")
                .unwrap_or_else(|error| panic!("{when}, {way:?}: {error}"));
        }
    };
    convey.reload(&plan("9000-9020"));
    talk("after widening");
    for way in WAYS {
        expect_range(&site, way, 9_008..=9_020);
    }
    convey.reload(&plan("9000-9004"));
    talk("after narrowing");
    for way in WAYS {
        expect_range(&site, way, 9_000..=9_004);
    }
    // the ports that nobody serves are the kernel's again, once their flows have ended
    drop(kept);
    wait_until("port 9008 is free", PATIENCE, || {
        let rules = site.lb.run("iptables -t raw -S CONVEY");
        rules.matches("--dport 9000:9004").count() == 2 && !rules.contains("9020")
    });
    let ip: IpAddr = vip(WAYS[0]);
    site.client
        .try_connect(SocketAddr::new(ip, 9_008))
        .expect_err("the kernel refuses it");
}
