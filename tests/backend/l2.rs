//! Method l2: the VIP on lo, and a host that keeps silent about it.

use crate::{
    Site, call,
    lab::{PATIENCE, wait_until},
    printed,
};

pub fn prints_its_commands() {
    assert_eq!(
        printed("print web --method l2 --rule tcp,192.0.2.1,80,10.0.0.5 --rule udp,2001:db8::1,53,fd00::5"),
        "sysctl -w net.ipv4.conf.all.arp_ignore=1\n\
         sysctl -w net.ipv4.conf.all.arp_announce=2\n\
         ip address add 192.0.2.1/32 dev lo scope host\n\
         ip address add 2001:db8::1/128 dev lo nodad preferred_lft 0\n"
    );
    // the same server may have several VIPs
    let two = "--rule tcp,2001:db8::1,80,fd00::5 --rule tcp,2001:db8::2,80,fd00::5";
    assert_eq!(
        printed(&format!("apply web --dry-run --method l2 {two}"))
            .lines()
            .count(),
        2
    );
    let dir = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = call(
        dir.path(),
        "print a --method l2 --rule tcp,192.0.2.1,80,10.0.0.5,8080",
    );
    assert_eq!((status, stdout.as_str()), (78, ""), "{stderr}");
    assert!(stderr.contains("method l2 rewrites nothing"), "{stderr}");
}

/// The addresses of lo, and what ARP is allowed.
fn state(site: &Site) -> String {
    site.server
        .run("ip -o address show dev lo; sysctl net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce")
}

fn rules(site: &Site, vips: &[&str]) -> String {
    let server = |vip: &str| {
        if vip.contains(':') {
            site.server.ip6().to_string()
        } else {
            site.server.ip4().to_string()
        }
    };
    let rules = vips
        .iter()
        .map(|vip| format!("--rule tcp,{vip},80,{}", server(vip)));
    format!("--method l2 {}", rules.collect::<Vec<_>>().join(" "))
}

pub fn applying_is_idempotent() {
    let site = Site::new("l2-twice");
    // somebody's own
    site.server.run("ip address add 10.77.0.201/32 dev lo");
    site.server.run("sysctl -qw net.ipv4.conf.all.arp_announce=1");
    let before = state(&site);
    let apply = format!(
        "apply web {}",
        rules(&site, &["10.77.0.200", "10.77.0.201", "fd77::200"])
    );
    site.setup(&apply);
    let once = state(&site);
    for part in [
        "10.77.0.200/32 scope host lo",
        "fd77::200/128",
        "deprecated",
        "arp_ignore = 1",
        "arp_announce = 2",
    ] {
        assert!(once.contains(part), "no {part:?} in\n{once}");
    }
    assert_eq!(site.setup("status web").lines().next(), Some("web: set up (l2)"));
    site.setup(&apply);
    assert_eq!(state(&site), once);

    // another reader of the settings, then the service at boot
    site.server
        .run("sysctl -qw net.ipv4.conf.all.arp_ignore=0 && ip address del 10.77.0.200/32 dev lo");
    let (status, text) = site.try_setup("status web");
    assert_eq!(status, 69);
    assert!(text.contains("NOT set up"), "{text}");
    site.setup("apply web");
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(state(&site)), sorted(once));

    // without one VIP, and by another method
    site.setup(&format!(
        "apply web {}",
        rules(&site, &["10.77.0.201", "fd77::200"])
    ));
    assert!(!state(&site).contains("10.77.0.200/32"));
    assert!(state(&site).contains("arp_ignore = 1"));
    site.setup(&format!(
        "apply web --rule tcp,10.77.0.201,80,{}",
        site.server.ip4()
    ));
    assert_eq!(state(&site), before);
    site.setup(&apply);
    assert_eq!(site.server.run("nft -s list ruleset"), "");
    site.setup("remove web");
    assert_eq!(state(&site), before);
    assert!(!site.lab.dir().join("conf").exists(), "a configuration was left");
    assert!(!site.lab.dir().join("state").exists(), "a note was left");
    site.setup("remove web");
}

pub fn names_share_a_vip() {
    let site = Site::new("l2-names");
    let before = state(&site);
    for name in ["web", "mail"] {
        site.setup(&format!("apply {name} {}", rules(&site, &["10.77.0.200"])));
    }
    let both = state(&site);
    site.setup("remove web");
    assert_eq!(state(&site), both);
    site.setup("remove mail");
    assert_eq!(state(&site), before);
}

pub fn check_names_reasons() {
    let site = Site::new("l2-check");
    site.setup(&format!("apply web {}", rules(&site, &["10.77.0.200"])));
    let expect = |status: i32, part: &str| {
        let (code, text) = site.try_setup(&format!("check web --client {}", site.client.ip4()));
        assert_eq!(code, status, "{text}");
        assert!(text.contains(part), "no {part:?} in\n{text}");
    };
    let listen = |addr: &str| {
        let mut socket = None;
        // a process that another test starts just now has the socket closed before until it runs its program
        wait_until("the port is free", PATIENCE, || {
            socket = site.server.inside(|| std::net::TcpListener::bind(addr).ok());
            socket.is_some()
        });
        socket
    };
    expect(69, "nothing listens on tcp port 80");
    let socket = listen(&format!("{}:80", site.server.ip4()));
    expect(69, "not at the VIP 10.77.0.200");
    drop(socket);
    let socket = listen("10.77.0.200:80");
    expect(69, "where the load balancer's health checks connect to");
    drop(socket);
    let _socket = listen("0.0.0.0:80");
    expect(0, "No problem found");
    site.server.run("sysctl -qw net.ipv4.conf.all.arp_ignore=0");
    expect(69, "ARP answers for them");
    site.setup("apply web");
    site.server.run("ip address del 10.77.0.200/32 dev lo");
    expect(69, "does not have the VIP 10.77.0.200 on lo");
    site.setup("apply web");
    site.server.run("ip address add 10.77.0.200/32 dev eth0");
    expect(69, "this host has the VIP 10.77.0.200 on eth0");
}
