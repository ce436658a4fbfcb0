//! Servers that come by themselves, named by name servers.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use convey::base::{ServerAddr, ServerState};
use nix::sys::signal::Signal;

use crate::{
    Test,
    asked::QUICK,
    discovery::{Stage, discovered},
    lab::{Convey, Host, PATIENCE, Process, servers::TcpServer, wait_until},
    site::{FAST_CHECK, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    the_addresses_of_a_name_are_servers_for_as_long_as_it_says,
    names_are_asked_for_as_the_host_does_it,
    the_services_of_a_name_come_with_ports_weights_and_priorities,
    a_name_with_two_hundred_addresses_is_asked_for_by_tcp,
    times_to_live_of_bind_that_change_are_kept_to_within_their_bounds,
];

/// dnsmasq that knows the hosts of a file, and these records.
struct NameServer {
    host: Host,
    hosts: PathBuf,
    options: String,
    process: Option<Process>,
}

impl NameServer {
    fn start(host: Host, options: &str) -> Self {
        let hosts = host.path("names");
        fs::write(&hosts, "").expect("a file of hosts");
        let mut server = Self {
            host,
            hosts,
            options: options.to_owned(),
            process: None,
        };
        server.revive();
        server
    }

    fn revive(&mut self) {
        let process = self.host.start(&format!(
            "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --no-resolv --no-hosts --bind-interfaces \
             --listen-address={} --local=/test/ --local-ttl=1 --addn-hosts={} --user=root {}",
            self.host.ip4(),
            self.hosts.display(),
            self.options
        ));
        let query = format!("dig +short +tries=1 +time=1 @{} ready.test", self.host.ip4());
        wait_until("the name server answers", PATIENCE, || {
            self.host.try_run(&query).status.success()
        });
        self.process = Some(process);
    }

    /// Has it know these hosts from now on.
    fn know(&self, names: &[(&str, SocketAddr)]) {
        let text: String = names
            .iter()
            .map(|(name, addr)| format!("{} {name}\n", addr.ip()))
            .collect();
        fs::write(&self.hosts, text).expect("a file of hosts");
        self.process.as_ref().expect("it runs").signal(Signal::SIGHUP);
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn settings(&self) -> String {
        format!(
            "resolvers = \"{}\"\nmin_ttl = \"200ms\"\n{QUICK}\nmax_removal = \"100%\"",
            self.host.ip4()
        )
    }
}

fn the_addresses_of_a_name_are_servers_for_as_long_as_it_says() {
    let stage = Stage::new("dns", 3, 1);
    let mut names = NameServer::start(stage.lab.host("names"), "");
    let addr = |index: usize| stage.servers[index].addr();
    // each server has a port of its own here, and a name has one for all
    let port = addr(0).port();
    names.know(&[("web.test", addr(0)), ("other.test", addr(1))]);
    let config = discovered(
        &stage.lb,
        &format!(
            "kind = \"dns\"\nname = \"web.test\"\nport = {port}\nfamily = \"ipv4\"\n{}",
            names.settings()
        ),
    );
    stage.convey.reload(&config);
    stage.wait_for(&[0]);
    assert_eq!(stage.reached(), "a");
    let shown = stage.convey.order("status");
    assert!(shown.contains("dns: 1 server, read "), "{shown}");

    let spare: SocketAddr = "10.77.9.9:80".parse().expect("an address");
    names.know(&[("web.test", addr(0)), ("web.test", spare)]);
    wait_until("the second address is a server", PATIENCE, || {
        stage.convey.status().backends["web"].servers.len() == 2
    });
    names.know(&[("web.test", addr(0))]);
    wait_until("it has gone again", PATIENCE, || {
        stage.convey.status().backends["web"].servers.len() == 1
    });

    // another address, at which nobody has been checked yet: nobody is refused meanwhile
    let (other, first) = (stage.lab.host("other"), addr(0));
    let elsewhere = TcpServer::named(&other, port, "a");
    let served = AtomicBool::new(true);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut refused = 0;
            while served.load(Relaxed) {
                refused += usize::from(stage.greeted() != "a");
            }
            refused
        });
        for to in [elsewhere.addr(), first, elsewhere.addr(), first] {
            names.know(&[("web.test", to)]);
            wait_until("the server is elsewhere", PATIENCE, || {
                let status = stage.convey.status();
                let servers = &status.backends["web"].servers;
                servers.len() == 1 && servers.values().all(|server| server.addr == ServerAddr::new(to))
            });
        }
        served.store(false, Relaxed);
        assert_eq!(asking.join().expect("no panic"), 0, "{}", stage.convey.stderr());
    });
    assert_eq!(stage.said("backend web is down"), 0, "{}", stage.convey.stderr());

    // no such name, then nobody who knows: the server stays, and each is said once
    names.know(&[]);
    stage.wait_said("web.test: no such name (NXDOMAIN)");
    assert_eq!(stage.reached(), "a");
    names.kill();
    wait_until("nobody answers", PATIENCE, || {
        let shown = stage.convey.order("status");
        shown.contains("web.test (A): ") || shown.contains("it has not answered")
    });
    assert_eq!(stage.reached(), "a");
    assert_eq!(stage.said("NXDOMAIN"), 1, "{}", stage.convey.stderr());
    names.revive();
    names.know(&[("web.test", addr(0))]);
    wait_until("it is known again", PATIENCE, || stage.problem().is_none());
    assert_eq!(stage.reached(), "a");
}

fn names_are_asked_for_as_the_host_does_it() {
    let stage = Stage::new("dns-host", 2, 1);
    let names = NameServer::start(stage.lab.host("names"), "");
    names.know(&[("web.example.test", stage.servers[0].addr())]);
    let (resolv, hosts) = (stage.lb.path("resolv.conf"), stage.lb.path("hosts"));
    fs::write(
        &resolv,
        format!(
            "search other.test example.test\nnameserver {}\n",
            names.host.ip4()
        ),
    )
    .expect("write");
    fs::write(
        &hosts,
        format!("127.0.0.1 localhost\n{} known\n", stage.servers[1].addr().ip()),
    )
    .expect("write");
    let named = |name: &str, server: usize| {
        let port = stage.servers[server].addr().port();
        let asked = format!(
            "kind = \"dns\"\nname = \"{name}\"\nport = {port}\nmin_ttl = \"200ms\"\n{QUICK}\nmax_removal = \"100%\""
        );
        discovered(&stage.lb, &asked)
    };
    let mount = format!(
        "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/hosts && exec \"$@\"",
        resolv.display(),
        hosts.display()
    );
    let launcher = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let own = stage.lab.host("own");
    let mut convey = Convey::launch_with(
        &own,
        &named("web", 0).replace(&stage.lb.ip4().to_string(), &own.ip4().to_string()),
        &launcher,
    );
    convey.wait_ready();
    let discovered_addr = |convey: &Convey| -> Vec<String> {
        let status = convey.status();
        status.backends["web"]
            .servers
            .values()
            .map(|server| server.addr.to_string())
            .collect()
    };
    wait_until("the second name of the search list is the one", PATIENCE, || {
        discovered_addr(&convey) == [stage.servers[0].addr().to_string()]
    });
    convey.reload(&named("known", 1).replace(&stage.lb.ip4().to_string(), &own.ip4().to_string()));
    wait_until("the hosts file knows it", PATIENCE, || {
        discovered_addr(&convey) == [stage.servers[1].addr().to_string()]
    });

    // the same of servers of the configuration: one that is not answered for stays, and keeps nobody from the others
    let (of_web, of_known) = (stage.servers[0].addr(), stage.servers[1].addr());
    let by_name = format!(
        "[global]\nwatch_config = false\n{}[backends.web]\n{FAST_CHECK}\nservers.one = {{ addr = \"web:{}\", weight = 3 }}\n\
         servers.two = {{ addr = \"known:{}\", resolve = \"all\" }}\nservers.three.addr = \"none:80\"\n",
        frontend("f", own.addr(9), "web", ""),
        of_web.port(),
        of_known.port()
    );
    convey.reload(&by_name);
    let servers = |convey: &Convey| -> Vec<String> {
        let status = convey.status();
        let servers = status.backends["web"].servers.iter();
        servers
            .map(|(name, server)| format!("{name} {} {}", server.addr, server.weight))
            .collect()
    };
    let two = format!("two@{} {of_known} 1", of_known.ip());
    let expected = [format!("one {of_web} 3"), two.clone()];
    wait_until("both are servers", PATIENCE, || servers(&convey) == expected);
    let said = "name web: none: no such name (NXDOMAIN)".replace("name web", "names of 3 servers");
    wait_until(&said, PATIENCE, || convey.stderr().contains(&said));
    fs::write(&hosts, "10.77.9.9 known\n").expect("write");
    let moved = [
        format!("one {of_web} 3"),
        format!("two@10.77.9.9 10.77.9.9:{} 1", of_known.port()),
    ];
    wait_until("the hosts file has changed", PATIENCE, || {
        servers(&convey) == moved
    });
    assert_eq!(convey.stderr().matches(&said).count(), 1, "{}", convey.stderr());
}

fn the_services_of_a_name_come_with_ports_weights_and_priorities() {
    let stage = Stage::new("srv", 3, 1);
    let port = |index: usize| stage.servers[index].addr().port();
    let records = format!(
        "--srv-host=_web._tcp.test,a.test,{},10,60 --srv-host=_web._tcp.test,b.test,{},10,0 --srv-host=_web._tcp.test,c.test,{},20,5",
        port(0),
        port(1),
        port(2)
    );
    let names = NameServer::start(stage.lab.host("names"), &records);
    let hosts: Vec<_> = (["a.test", "b.test", "c.test"].into_iter())
        .zip(stage.servers.iter().map(TcpServer::addr))
        .collect();
    names.know(&hosts);
    let asked = format!(
        "kind = \"srv\"\nname = \"_web._tcp.test\"\nfamily = \"ipv4\"\n{}",
        names.settings()
    );
    stage.convey.reload(&discovered(&stage.lb, &asked));
    wait_until("all of them are up", PATIENCE, || {
        let status = stage.convey.status();
        status.backends["web"]
            .servers
            .values()
            .filter(|server| server.state == ServerState::Up)
            .count()
            == 3
    });
    let of = |index: usize| {
        let server = stage
            .convey
            .server("web", &stage.servers[index].addr().to_string());
        (server.weight, server.priority)
    };
    assert_eq!([of(0), of(1), of(2)], [(60, 10), (1, 10), (5, 20)]);
    assert_eq!(
        stage.reached().replace('b', ""),
        "a",
        "the third is for when both are down"
    );
    // a host that is not known any more takes its service along, and no other
    names.know(&hosts[..2]);
    wait_until("it is noticed", PATIENCE, || {
        stage.convey.status().backends["web"].servers.len() == 2
    });
    assert_eq!(stage.reached().replace('b', ""), "a");
}

fn a_name_with_two_hundred_addresses_is_asked_for_by_tcp() {
    let stage = Stage::new("dns-many", 1, 1);
    let names = NameServer::start(stage.lab.host("names"), "--edns-packet-max=512");
    let many: Vec<(&str, SocketAddr)> = (1..=200)
        .map(|host| ("many.test", SocketAddr::from(([10, 78, 0, host], 80))))
        .collect();
    names.know(&many);
    let asked = |most: u32| {
        let settings = format!(
            "kind = \"dns\"\nname = \"many.test\"\nport = 80\nmax_servers = {most}\n{}",
            names.settings()
        );
        discovered(&stage.lb, &settings)
    };
    stage.convey.reload(&asked(150));
    stage.wait_said("the answer has more than 150 servers (max_servers)");
    stage.convey.reload(&asked(200));
    wait_until("all of them are servers", PATIENCE, || {
        stage.convey.status().backends["web"].servers.len() == 200
    });
    assert!(
        names
            .host
            .run("ss -Htn state time-wait,established | wc -l")
            .trim()
            != "",
        "asked"
    );
}

/// BIND with one zone, test.
struct Bind {
    host: Host,
    zone: PathBuf,
    serial: u32,
    process: Process,
}

impl Bind {
    fn start(host: Host) -> Self {
        let (zone, conf) = (host.path("test.zone"), host.path("named.conf"));
        let dir = host.dir().display();
        fs::write(
            &conf,
            format!(
                "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; listen-on {{ {}; }}; listen-on-v6 {{ none; }}; \
                 recursion no; dnssec-validation no; }};\ncontrols {{ }};\n\
                 zone test {{ type master; file \"{}\"; }};\n",
                host.ip4(),
                zone.display()
            ),
        )
        .expect("write");
        fs::write(&zone, zone_file(1, "")).expect("write");
        let process = host.start(&format!("exec named -f -u root -c {}", conf.display()));
        let query = format!("dig +short +tries=1 +time=1 @{} ns.test", host.ip4());
        wait_until("BIND answers", PATIENCE, || {
            host.try_run(&query).stdout.contains("192.0.2.53")
        });
        Self {
            host,
            zone,
            serial: 1,
            process,
        }
    }

    /// Has web.test have these addresses, for so many seconds.
    fn know(&mut self, ttl: u32, addrs: &[SocketAddr]) {
        self.serial += 1;
        let records: String = (addrs.iter())
            .map(|addr| format!("web {ttl} IN A {}\n", addr.ip()))
            .collect();
        fs::write(&self.zone, zone_file(self.serial, &records)).expect("write");
        self.process.signal(Signal::SIGHUP);
    }
}

fn zone_file(serial: u32, records: &str) -> String {
    format!(
        "$TTL 1\n@ IN SOA ns hostmaster {serial} 3600 600 86400 1\n@ IN NS ns\nns IN A 192.0.2.53\n{records}"
    )
}

fn times_to_live_of_bind_that_change_are_kept_to_within_their_bounds() {
    let stage = Stage::new("bind", 1, 1);
    let mut bind = Bind::start(stage.lab.host("names"));
    let addr = stage.servers[0].addr();
    let spare: SocketAddr = "10.77.9.9:80".parse().expect("an address");
    bind.know(1, &[addr]);
    let config = |max_ttl: &str| {
        discovered(
            &stage.lb,
            &format!(
                "kind = \"dns\"\nname = \"web.test\"\nport = {}\nfamily = \"ipv4\"\nresolvers = \"{}\"\n\
                 min_ttl = \"300ms\"\nmax_ttl = \"{max_ttl}\"\n{QUICK}\nmax_removal = \"100%\"",
                addr.port(),
                bind.host.ip4()
            ),
        )
    };
    let (short, long) = (config("1s"), config("1h"));
    let servers = |wanted: usize| {
        wait_until(&format!("{wanted} servers"), PATIENCE, || {
            stage.convey.status().backends["web"].servers.len() == wanted
        });
    };
    stage.convey.reload(&short);
    stage.wait_for(&[0]);
    // at once again, but for the floor
    bind.know(0, &[addr, spare]);
    servers(2);
    // for long, but for the ceiling
    bind.know(3_600, &[addr]);
    servers(1);
    bind.know(3_600, &[addr, spare]);
    servers(2);
    // without one the answer holds, until a reload asks anew
    stage.convey.reload(&long);
    servers(2);
    bind.know(3_600, &[addr]);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(stage.convey.status().backends["web"].servers.len(), 2);
    stage.convey.reload(&short);
    servers(1);
    assert_eq!(stage.reached(), "a");
}
