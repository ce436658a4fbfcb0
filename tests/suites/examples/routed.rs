//! `ha/bird.conf` and `ha/convey.service.conf`: Debian's BIRD on both load balancers and on the router before them.

use crate::{
    lab::{PATIENCE, Process, servers::Witness, wait_until},
    machine::{Machine, Service},
    pair::{Pair, VIDEO, WEB, expect_alive, expect_valid},
    site::{keep_trying, meet, read},
    tests,
};

/// Tests of `bird.conf`.
pub const BIRD: &[crate::Test] = tests![both_load_balancers_share_the_traffic_and_a_dead_one_is_left_out,];

/// Tests of `convey.service.conf`.
pub const SERVICE: &[crate::Test] = tests![
    the_routes_of_a_load_balancer_go_and_come_with_its_convey,
    the_routes_of_a_load_balancer_go_when_its_convey_crashes,
];

/// The same, for systemd's own tool.
pub const UNIT: &[crate::Test] = tests![systemd_understands_it];

/// The addresses of the load balancers, as next hops.
const HOPS: [&str; 2] = ["10.0.0.2", "10.0.0.3"];

/// The router's side; its operator's affair. It begins by itself, so that no test waits for the others' delays.
const ROUTER: &str = r#"
router id 10.0.0.1;
protocol device { }
protocol kernel { merge paths yes; ipv4 { import none; export all; }; }
template bgp balancer {
    local 10.0.0.1 as 65001;
    connect delay time 1;
    connect retry time 1;
    ipv4 { import all; export none; };
}
protocol bgp lb1 from balancer { neighbor 10.0.0.2 as 65010; }
protocol bgp lb2 from balancer { neighbor 10.0.0.3 as 65010; }
"#;

/// The pair at work behind a router that has both as next hops.
struct Site {
    birds: Vec<Process>,
    convey: [Option<Service>; 2],
    router: Machine,
    pair: Pair,
}

impl Site {
    #[track_caller]
    fn new() -> Self {
        let pair = Pair::new(|config| config.replace("#interface = \"eth0\"", "interface = \"eth0\""));
        let router = Machine::new(&pair.site.lab.host("router"));
        router.host().add_address("eth0", "10.0.0.1/24");
        router.host().forward();
        // addresses and ports, as the comments ask of routers
        router.run("echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy");
        let way = format!("ip route add 192.0.2.0/24 via {}", router.host().ip4());
        pair.site.client.run(&way);
        let mut site = Self {
            birds: Vec::new(),
            convey: [None, None],
            router,
            pair,
        };
        let conf = read("ha/bird.conf");
        site.birds.push(bird(&site.router, ROUTER));
        let both = [conf.clone(), conf.replace(HOPS[0], HOPS[1])];
        for (lb, conf) in site.pair.both().into_iter().zip(&both) {
            site.birds.push(bird(lb, conf));
        }
        for index in 0..2 {
            site.start(index);
        }
        site.wait_for_hops(&HOPS);
        site
    }

    /// As `systemctl start convey` with the drop-in.
    #[track_caller]
    fn start(&mut self, index: usize) {
        let lb = self.pair.both()[index];
        self.convey[index] = Some(lb.convey(""));
        orders(lb, "ExecStartPost=+");
    }

    /// A crash, as systemd deals with it by the drop-in; its restart would be another [`start`](Self::start).
    #[track_caller]
    fn crash(&mut self, index: usize) {
        self.convey[index].take().expect("it runs").crash();
        orders(self.pair.both()[index], "ExecStopPost=+-");
    }

    /// As `systemctl stop convey` with the drop-in.
    #[track_caller]
    fn stop(&mut self, index: usize) {
        let lb = self.pair.both()[index];
        orders(lb, "ExecStop=+-");
        lb.stop(self.convey[index].take().expect("it runs"));
    }

    /// Waits until the router sends to exactly these next hops, for both VIPs.
    #[track_caller]
    fn wait_for_hops(&self, hops: &[&str]) {
        wait_until("the router's routes", PATIENCE, || {
            ["192.0.2.80", "192.0.2.90"].iter().all(|vip| {
                let route = self.router.run(&format!("ip route show {vip}/32"));
                HOPS.iter()
                    .all(|hop| hops.contains(hop) == route.contains(&format!("via {hop} ")))
            })
        });
    }

    /// New connections through both frontends, none of which fails, and how many each load balancer took.
    #[track_caller]
    fn connect(&self, connections: usize) -> [u64; 2] {
        let totals = || {
            let taken = |index: usize| {
                let alive = self.convey[index].is_some();
                let status = alive.then(|| self.pair.both()[index].status());
                status.map_or(0, |status| {
                    status
                        .frontends
                        .values()
                        .map(|f| f.traffic.connections_total)
                        .sum()
                })
            };
            [0, 1].map(taken)
        };
        let before = totals();
        for vip in [WEB, VIDEO].repeat(connections) {
            meet(&self.pair.site.client, vip);
        }
        let after = totals();
        [after[0] - before[0], after[1] - before[1]]
    }

    /// Connections in mode dsr, through both load balancers: by chance there are too few of one with odds of 1 in 2^39.
    #[track_caller]
    fn talkers(&self) -> Vec<Witness> {
        (0..40)
            .map(|_| keep_trying(&self.pair.site.client, VIDEO, PATIENCE))
            .collect()
    }
}

/// Does what the drop-in tells systemd to do at one occasion.
#[track_caller]
fn orders(lb: &Machine, occasion: &str) {
    let text = read("ha/convey.service.conf");
    let commands: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(occasion))
        .collect();
    assert_eq!(commands.len(), 2, "{occasion} of both addresses");
    for command in commands {
        lb.run(command);
    }
}

/// Starts BIRD as its service does.
#[track_caller]
fn bird(machine: &Machine, conf: &str) -> Process {
    machine.write("/etc/bird/bird.conf", conf);
    machine.run("bird -p");
    machine.start("exec bird -f")
}

fn systemd_understands_it() {
    expect_valid("convey.service", "ha/convey.service.conf");
}

fn both_load_balancers_share_the_traffic_and_a_dead_one_is_left_out() {
    let mut site = Site::new();
    let taken = site.connect(20);
    assert!(taken[0] > 0 && taken[1] > 0, "{taken:?}");
    let mut talkers = site.talkers();
    // BIRD may be restarted at any time: what it announces is on lo
    drop(site.birds.remove(1));
    site.wait_for_hops(&HOPS[1..]);
    let conf = read("ha/bird.conf");
    site.birds.insert(1, bird(&site.pair.site.lb, &conf));
    site.wait_for_hops(&HOPS);

    site.pair.site.lab.unplug(site.pair.second.host());
    site.wait_for_hops(&HOPS[..1]);
    talkers.iter_mut().for_each(expect_alive);
    let taken = site.connect(10);
    assert!(taken[0] >= 20, "{taken:?}");
}

fn the_routes_of_a_load_balancer_go_and_come_with_its_convey() {
    let mut site = Site::new();
    let mut talkers = site.talkers();
    site.stop(0);
    site.wait_for_hops(&HOPS[1..]);
    talkers.iter_mut().for_each(expect_alive);
    let taken = site.connect(10);
    assert!(taken[1] >= 20, "all through the second: {taken:?}");
    site.start(0);
    site.wait_for_hops(&HOPS);
    talkers.iter_mut().for_each(expect_alive);
    let taken = site.connect(20);
    assert!(taken[0] > 0 && taken[1] > 0, "{taken:?}");
}

fn the_routes_of_a_load_balancer_go_when_its_convey_crashes() {
    let mut site = Site::new();
    let mut talkers = site.talkers();
    site.crash(0);
    site.wait_for_hops(&HOPS[1..]);
    talkers.iter_mut().for_each(expect_alive);
    let taken = site.connect(10);
    assert!(taken[1] >= 20, "all through the second: {taken:?}");
}
