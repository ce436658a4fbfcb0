//! Who may connect, and how often: access rules, lists of networks, limits of clients and frontends.

use std::{fs, net::TcpStream, path::PathBuf};

use convey::base::AccessReason;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{NO_CHECK, backend, expect_turned_away, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    the_first_rule_that_names_a_client_decides,
    a_client_at_its_limit_does_not_hinder_another,
    a_client_that_opens_too_many_a_second_is_refused_whatever_becomes_of_them,
    a_frontend_takes_no_more_new_connections_than_it_may,
    a_list_that_changes_is_in_effect_without_an_order,
    a_list_with_a_bad_line_changes_nothing_and_is_named,
];

const PORT: u16 = 9;

/// Two clients, a load balancer, and a server that names itself `s`.
struct Yard {
    one: Host,
    two: Host,
    lb: Host,
    server: TcpServer,
    _lab: Lab,
}

impl Yard {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (one, two, lb, host) = (
            lab.host("one"),
            lab.host("two"),
            lab.host("lb"),
            lab.host("server"),
        );
        let server = TcpServer::named(&host, PORT, "s");
        Self {
            one,
            two,
            lb,
            server,
            _lab: lab,
        }
    }

    fn config(&self, settings: &str) -> String {
        frontend("f", self.lb.addr(PORT), "b", settings)
            + &backend("b", NO_CHECK, &[("s", self.server.addr(), "")])
    }

    /// With a list of networks, in a file of its own.
    fn with_list(&self, networks: &str) -> (String, PathBuf) {
        let path = self.lb.path("friends.list");
        fs::write(&path, networks).expect("a list");
        let config = format!("[network_lists]\nfriends = {path:?}\n")
            + &self.config("access = { default = \"deny\", rules = [\"allow file:friends\"] }");
        (config, path)
    }

    #[track_caller]
    fn expect_served(&self, client: &Host) -> TcpStream {
        let mut stream = client.connect(self.lb.addr(PORT));
        assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
        stream
    }

    #[track_caller]
    fn expect_refused(&self, client: &Host) {
        expect_turned_away(client, self.lb.addr(PORT));
    }

    fn is_served(&self, client: &Host) -> bool {
        let stream = client.try_connect(self.lb.addr(PORT));
        stream.is_ok_and(|mut stream| read_line(&mut stream).is_ok_and(|line| line == "s"))
    }
}

fn refused(convey: &Convey, reason: AccessReason) -> u64 {
    let status = convey.status();
    let refused = &status.frontends["f"].refused;
    refused
        .iter()
        .filter(|(word, _)| word.known() == Some(reason))
        .map(|(_, count)| *count)
        .sum()
}

fn the_first_rule_that_names_a_client_decides() {
    let yard = Yard::new("rules");
    let rules = format!(
        "access = {{ default = \"deny\", rules = [\"deny {}\", \"allow {}/24\"] }}",
        yard.one.ip4(),
        network24(&yard.one)
    );
    let convey = Convey::start(&yard.lb, &yard.config(&rules));
    yard.expect_refused(&yard.one);
    yard.expect_served(&yard.two);
    assert_eq!(refused(&convey, AccessReason::Denied), 1);
    let traffic = convey.traffic("f");
    assert_eq!(
        traffic.connections_total, 1,
        "what is refused is not a connection of the frontend"
    );
    assert!(convey.order("status").contains("1 refused"));
    // connections outlive a reload that would refuse them
    let mut kept = yard.expect_served(&yard.two);
    convey.reload(&yard.config("access = { default = \"deny\" }"));
    yard.expect_refused(&yard.two);
    std::io::Write::write_all(&mut kept, b"still\n").expect("a connection from before");
    convey.reload(&yard.config(""));
    yard.expect_served(&yard.one);
}

/// The first address of the /24 that a host is in.
fn network24(host: &Host) -> std::net::Ipv4Addr {
    let [a, b, c, _] = host.ip4().octets();
    [a, b, c, 0].into()
}

fn a_client_at_its_limit_does_not_hinder_another() {
    let yard = Yard::new("perclient");
    let limits = "limits.per_client = { connections = 3 }";
    let convey = Convey::start(&yard.lb, &yard.config(limits));
    let mut held: Vec<_> = (0..3).map(|_| yard.expect_served(&yard.one)).collect();
    for _ in 0..20 {
        yard.expect_refused(&yard.one);
    }
    assert_eq!(refused(&convey, AccessReason::ClientConnections), 20);
    yard.expect_served(&yard.two);
    // one event for all of them: whoever floods does not fill the log
    let events = || convey.stderr().matches("refuses connections").count();
    wait_until("the log tells of it", PATIENCE, || events() > 0);
    assert!(events() <= 2, "one a worker at most\n{}", convey.stderr());
    held.pop();
    wait_until("an ended connection counts no more", PATIENCE, || {
        yard.is_served(&yard.one)
    });
    // what a client has outlives a reload
    convey.reload(&yard.config(&format!("{limits}\nidle_timeout = \"9m\"")));
    held.extend((0..5).filter_map(|_| {
        let mut stream = yard.one.try_connect(yard.lb.addr(PORT)).ok()?;
        read_line(&mut stream)
            .is_ok_and(|line| line == "s")
            .then_some(stream)
    }));
    assert!(held.len() <= 3, "{}", held.len());
}

fn a_client_that_opens_too_many_a_second_is_refused_whatever_becomes_of_them() {
    let yard = Yard::new("clientrate");
    let limits = "limits.per_client = { new_per_second = 1 }";
    let convey = Convey::start(&yard.lb, &yard.config(limits));
    let attempts = 200;
    let started = std::time::Instant::now();
    let served = (0..attempts).filter(|_| yard.is_served(&yard.one)).count();
    // a second's allowance at once, and then one a second, however long it took
    let most = started.elapsed().as_secs() + 2;
    assert!(
        u64::try_from(served).is_ok_and(|served| (1..=most).contains(&served)),
        "{served} of {most}"
    );
    let refused = refused(&convey, AccessReason::ClientRate);
    assert_eq!(refused, attempts - u64::try_from(served).unwrap_or(0));
    yard.expect_served(&yard.two);
}

fn a_frontend_takes_no_more_new_connections_than_it_may() {
    let yard = Yard::new("rate");
    let convey = Convey::start(&yard.lb, &yard.config("limits.new_per_second = 2"));
    let started = std::time::Instant::now();
    let served = (0..100)
        .filter(|turn| yard.is_served(if turn % 2 == 0 { &yard.one } else { &yard.two }))
        .count();
    let most = 2 * (started.elapsed().as_secs() + 2);
    assert!(
        u64::try_from(served).is_ok_and(|served| (2..=most).contains(&served)),
        "{served} of {most}"
    );
    assert_eq!(
        refused(&convey, AccessReason::FrontendRate),
        100 - u64::try_from(served).unwrap_or(0)
    );
}

fn a_list_that_changes_is_in_effect_without_an_order() {
    let yard = Yard::new("list");
    let (config, path) = yard.with_list(&format!("# friends\n{}\n", yard.one.ip4()));
    let convey = Convey::start(&yard.lb, &format!("[global]\nwatch_config = true\n{config}"));
    yard.expect_served(&yard.one);
    yard.expect_refused(&yard.two);
    let new = path.with_extension("new");
    fs::write(&new, format!("{}\n", yard.two.ip4())).expect("another list");
    fs::rename(&new, &path).expect("in the place of the first");
    wait_until("the new list is in effect", PATIENCE, || {
        yard.is_served(&yard.two)
    });
    yard.expect_refused(&yard.one);
    assert_eq!(convey.status().config_generation, 2);
}

fn a_list_with_a_bad_line_changes_nothing_and_is_named() {
    let yard = Yard::new("badlist");
    let (config, path) = yard.with_list(&format!("{}\n", yard.one.ip4()));
    let convey = Convey::start(&yard.lb, &config);
    fs::write(&path, "10.0.0.0/8\n10.1.0.0/8\n").expect("a bad list");
    let failed = convey.cli("reload");
    assert!(!failed.status.success());
    let said = failed.stdout + &failed.stderr;
    assert!(said.contains("friends.list: line 2: \"10.1.0.0/8\""), "{said}");
    assert!(said.contains("the network is 10.0.0.0/8"), "{said}");
    yard.expect_served(&yard.one);
    assert_eq!(convey.status().config_generation, 1);
    fs::write(&path, format!("{}\n", yard.two.ip4())).expect("a good one");
    convey.order("reload");
    yard.expect_served(&yard.two);
    assert_eq!(convey.status().last_reload_error, None);
}
