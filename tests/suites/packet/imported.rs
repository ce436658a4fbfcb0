//! What `convey import` makes of IPVS with direct routing, run. (This kernel has no IPVS.)

use std::{collections::BTreeMap, net::SocketAddr};

use convey::import::{InputFile, Kind, NoFiles, translate};

use crate::{
    Test,
    lab::{
        Convey, Family, Host, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{Mode, Plan, Port, Site, Transport, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: directly_routed_servers_answer_the_client_from_the_vip_and_get_their_shares,
    Convey: keepalived_its_sorry_server_serves_when_no_other_is_up,
];

const WEB: Port = Port::same("web", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

/// The site, its servers prepared as those of direct routing are: the VIPs on lo, silent about them.
fn site(name: &str, servers: usize) -> Site {
    let site = Site::new(name, servers);
    let plan = Plan {
        method: "l2",
        ..Plan::new(&[WEB, ECHO], &site.servers).by(&Family::ALL.map(|family| (Mode::Dsr, family)))
    };
    site.prepare_servers(&plan);
    site
}

#[track_caller]
fn convey(site: &Site, kind: Kind, name: &str, text: &str) -> Convey {
    let imported = translate(kind, &InputFile::new(name, text.as_bytes()), &mut NoFiles)
        .unwrap_or_else(|error| panic!("{error}"));
    site.lab.convey(&site.lb, &imported.text)
}

fn witness(host: &Host, addr: SocketAddr) -> TcpServer {
    TcpServer::witness(host, addr, host.name())
}

#[track_caller]
fn shares(client: &Host, to: SocketAddr, connections: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        let met = Witness::meet(client, to).expect("a server");
        assert_eq!(
            met.seen,
            met.stream().local_addr().expect("an address"),
            "the client itself"
        );
        *shares.entry(met.server).or_default() += 1;
    }
    shares
}

fn directly_routed_servers_answer_the_client_from_the_vip_and_get_their_shares() {
    let site = site("import-l2", 3);
    let vips = Family::ALL.map(|family| vip((Mode::Dsr, family)));
    let mut text = String::new();
    let mut servers = (Vec::new(), Vec::new());
    for (family, vip) in Family::ALL.into_iter().zip(vips) {
        let (web, echo) = (SocketAddr::new(vip, 9), SocketAddr::new(vip, 7));
        text += &format!("-A -t {web} -s wrr\n-A -u {echo} -s rr\n");
        for (host, weight) in site.servers.iter().zip([3, 1, 0]) {
            text += &format!("-a -t {web} -r {} -g -w {weight}\n", host.addr_of(family, 9));
            text += &format!("-a -u {echo} -r {} -g -w 1\n", host.addr_of(family, 7));
            servers.0.push(witness(host, web));
            servers.1.push(UdpServer::echo(host, echo, host.name()));
        }
    }
    let _convey = convey(&site, Kind::Ipvs, "ipvs.rules", &text);
    let names: Vec<_> = site.servers.iter().map(Host::name).collect();
    for vip in vips {
        // by a hash of address and port: 200 draws of 3 to 1; fewer than 20 of one have odds below 1 in 10^6
        let shares = shares(&site.client, SocketAddr::new(vip, 9), 200);
        assert!(!shares.contains_key(names[2]), "weight 0: {shares:?}");
        assert!(
            shares[names[0]] > shares[names[1]] && shares[names[1]] >= 20,
            "{shares:?}"
        );
        let client = UdpClient::new(&site.client, SocketAddr::new(vip, 7));
        let back = client.ask(&[7; 900]).expect("an answer from the VIP");
        assert!(back.ends_with(&[7; 900]));
    }
}

fn keepalived_its_sorry_server_serves_when_no_other_is_up() {
    let site = site("import-l2-sorry", 2);
    let vip = SocketAddr::new(vip((Mode::Dsr, Family::V4)), 9);
    let [server, sorry] = [&site.servers[0], &site.servers[1]];
    // checks go to their own addresses
    let own = [server, sorry].map(|host| TcpServer::echo(host, 9));
    let _others = witness(sorry, vip);
    let _its = witness(server, vip);
    let text = format!(
        "virtual_server {} {} {{\ndelay_loop 0.2\nlvs_sched wrr\nlvs_method DR\nprotocol TCP\nsorry_server {} 9\nreal_server {} 9 {{\nTCP_CHECK \
         {{\nconnect_timeout 1\nretry 1\ndelay_before_retry 0.1\n}}\n}}\n}}\n",
        vip.ip(),
        vip.port(),
        sorry.ip4(),
        server.ip4()
    );
    let _convey = convey(&site, Kind::Keepalived, "keepalived.conf", &text);
    assert_eq!(
        shares(&site.client, vip, 10).keys().collect::<Vec<_>>(),
        [server.name()]
    );
    let [of_server, _of_sorry] = own;
    drop(of_server);
    wait_until("the sorry server serves", PATIENCE, || {
        Witness::meet(&site.client, vip).is_ok_and(|met| met.server == sorry.name())
    });
    assert_eq!(
        shares(&site.client, vip, 10).keys().collect::<Vec<_>>(),
        [sorry.name()]
    );
}
