//! `ha.toml`: two load balancers, and the address that moves between them.

use convey::{
    admin::views::{FrontendState, Word},
    config::Options,
};

use crate::{
    lab::{Lab, PATIENCE, servers::Witness, wait_until},
    machine::Machine,
    packets::assert_direct,
    site::{Site, keep_trying, read, try_meet},
    tests,
};

/// Tests of this module.
pub const TESTS: &[crate::Test] = tests![
    a_packet_frontend_waits_for_its_address_and_a_proxied_one_serves_without,
    both_load_balancers_choose_the_same_server_and_a_connection_moves,
    one_that_drains_no_longer_counts_as_serving,
];

/// The proxied frontend, by the VIP.
pub const WEB: &str = "192.0.2.80:443";

/// The frontend in mode dsr.
pub const VIDEO: &str = "192.0.2.90:8000";

/// Two load balancers, with the VIPs on neither yet, and their servers, which spare both.
pub struct Pair {
    /// 10.0.0.3.
    pub second: Machine,
    /// The network, and the first load balancer, 10.0.0.2.
    pub site: Site,
}

impl Pair {
    /// Both with the same configuration: the example's, with such changes as its comments ask for.
    #[track_caller]
    pub fn new(adapt: fn(&str) -> String) -> Self {
        let site = Site::without_vips("ha.toml", &["10.0.0.2/24"], Options::default());
        let second = Machine::new(&site.lab.host("lb2"));
        second.host().add_address("eth0", "10.0.0.3/24");
        let config = adapt(&read("ha.toml"));
        site.lb.configure(&config);
        second.configure(&config);
        site.set_up_servers("video", "", "--lb 10.0.0.3");
        Self { second, site }
    }

    /// Clients reach the VIPs on the link, as their router does.
    pub fn on_link(self) -> Self {
        self.site.client.run("ip route add 192.0.2.0/24 dev eth0");
        self
    }

    /// Both, in order.
    pub fn both(&self) -> [&Machine; 2] {
        [&self.site.lb, &self.second]
    }

    /// Which of them has both VIPs, if exactly one has any.
    pub fn holder(&self) -> Option<usize> {
        let has = |vip| self.both().map(|lb| lb.has_address(vip));
        match (has("192.0.2.80"), has("192.0.2.90")) {
            ([true, false], [true, false]) => Some(0),
            ([false, true], [false, true]) => Some(1),
            _ => None,
        }
    }
}

/// What a load balancer says of its packet mode frontend.
#[track_caller]
pub fn video_state(lb: &Machine) -> FrontendState {
    let state = (lb.status().frontends["video"].state.as_ref()).and_then(Word::known);
    state.expect("a state of this version")
}

/// The connection goes on, whatever has happened to the load balancer; TCP may have to send again first.
#[track_caller]
pub fn expect_alive(witness: &mut Witness) {
    let words = b"still there?";
    assert!(
        witness.talk(words).is_ok(),
        "a DSR connection broke: {}",
        witness.seen
    );
    assert_direct(witness);
}

/// What systemd says to a service with this drop-in is nothing.
#[track_caller]
pub fn expect_valid(service: &str, drop_in: &str) {
    let lab = Lab::new("units");
    let machine = Machine::new(&lab.host("lb"));
    let directory = "/etc/systemd/system";
    machine.run(&format!("mkdir -p {directory}/{service}.d"));
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/convey.service");
    machine.run(&format!("cp {unit} {directory}"));
    machine.write(&format!("{directory}/{service}.d/example.conf"), &read(drop_in));
    let verify = machine.try_run(&format!("systemd-analyze verify --man=no {service}"));
    assert_eq!(
        (verify.status.code(), verify.stderr.as_str()),
        (Some(0), ""),
        "{}",
        verify.stdout
    );
}

fn a_packet_frontend_waits_for_its_address_and_a_proxied_one_serves_without() {
    let pair = Pair::new(str::to_owned).on_link();
    let lb = &pair.site.lb;
    let _convey = lb.convey("");
    assert_eq!(video_state(lb), FrontendState::Waiting);
    assert!(lb.run("convey status").contains("waiting: "));
    assert_eq!(pair.site.shares(&lb.host().addr(443).to_string(), 10).len(), 2);
    lb.host().add_address("eth0", "192.0.2.90/32");
    lb.wait_status("live", |status| {
        status.frontends["video"].state == Some(FrontendState::Live.into())
    });
    assert_eq!(pair.site.shares(VIDEO, 50).len(), 2);
}

fn both_load_balancers_choose_the_same_server_and_a_connection_moves() {
    let pair = Pair::new(str::to_owned).on_link();
    let [first, second] = pair.both();
    let _running = [first.convey(""), second.convey("")];
    for port in 40_000..40_050 {
        let question = format!("convey explain tcp 198.51.100.7:{port} {VIDEO} --json");
        let answers = [first, second].map(|lb| {
            let answer = lb.try_run(&question).stdout;
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("an explanation");
            answer["server"].clone()
        });
        assert!(
            answers[0].is_string() && answers[0] == answers[1],
            "{port}: {answers:?}"
        );
    }
    first.host().add_address("eth0", "192.0.2.90/32");
    let mut witness = keep_trying(&pair.site.client, VIDEO, PATIENCE);
    first.host().run("ip address del 192.0.2.90/32 dev eth0");
    second.host().add_address("eth0", "192.0.2.90/32");
    pair.site.client.run("ip neighbour flush dev eth0");
    expect_alive(&mut witness);
    assert!(
        second.status().frontends["video"].traffic.bytes_in > 0,
        "through the other one"
    );
}

fn one_that_drains_no_longer_counts_as_serving() {
    let pair = Pair::new(str::to_owned);
    let lb = &pair.site.lb;
    let convey = lb.convey("");
    let addr = lb.host().addr(443).to_string();
    let mut witness = pair.site.meet(&addr);
    lb.run("convey status --quiet");
    convey.terminate();
    // its control socket is the next one's
    wait_until("it drains", PATIENCE, || {
        let quiet = lb.try_run("convey status --quiet");
        assert_eq!(quiet.stdout, "");
        quiet.status.code() == Some(69)
    });
    assert!(
        try_meet(&pair.site.client, &addr).is_err(),
        "nobody new is served"
    );
    assert!(witness.talk(b"the last word").is_ok(), "who is there may finish");
}
