//! The program outlives the daemon under a service manager that keeps what it is made of: a crash or a restart breaks no flow,
//! and new ones are served while nobody runs (DESIGN §4, Restart).

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};

use crate::{
    Test,
    kept::{everywhere, witnesses},
    lab::{
        Convey, Family, Host, Nginx, PATIENCE, Process,
        crowd::{self, Holder, Report},
        load::Wrk,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    process,
    site::{Plan, Port, Site, Transport, WAYS, by_engine, frontend_name, vip},
    talkers::Talkers,
    tests,
    xdp::{attached, has_program},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: ten_thousand_idle_flows_bulk_and_requests_live_on_while_a_killed_convey_is_away,
    Convey: flows_live_on_and_new_ones_are_served_while_a_killed_convey_is_away,
    Convey: a_restart_under_load_breaks_no_flow_and_refuses_no_new_one,
    Convey: a_stop_for_good_takes_program_and_rules_away,
    Convey: deaths_during_the_start_break_no_flow,
    Convey: a_death_in_the_middle_of_a_reload_breaks_no_flow,
    Convey: a_death_of_the_broker_breaks_no_flow,
];

pub const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
pub const ECHO: Port = Port::same("echo", Transport::Udp, 7);
const WEB: Port = Port::same("web", Transport::Tcp, 80);
const BULK: Port = Port::same("bulk", Transport::Tcp, 5201);

/// What the daemon says when it goes on with what another one has left in the kernel.
const TAKEN_OVER: &str = "event=\"xdp_taken_over\"";

/// How long nobody runs, where a number matters.
const AWAY: Duration = Duration::from_secs(3);

/// Runs a test by the program, in the driver if the whole suite is.
pub fn by_the_program(test: fn()) {
    let suite = std::env::var("CONVEY_PACKET_ENGINE").is_ok_and(|engine| engine == "xdp-native");
    by_engine(if suite { "xdp-native" } else { "xdp" }, test);
}

/// Convey as a service that is started again, between a client and its servers.
pub struct Stage {
    pub convey: Convey,
    _servers: (Vec<TcpServer>, Vec<UdpServer>),
    pub site: Site,
}

impl Stage {
    /// With witnesses and echoes on every server of a plan.
    #[track_caller]
    pub fn new(site: Site, plan: &Plan) -> Self {
        let echoes = site.servers.iter().flat_map(|host| {
            Family::ALL.map(|family| UdpServer::echo(host, host.addr_of(family, 7), host.name()))
        });
        let servers = (witnesses(&site), echoes.collect());
        site.prepare_servers(plan);
        Self {
            convey: Convey::start_as_unit(&site.lb, &plan.config()),
            _servers: servers,
            site,
        }
    }

    /// Ends the daemon in this moment. Its program stays where it is.
    #[track_caller]
    pub fn kill(&mut self) {
        self.convey.signal(Signal::SIGKILL);
        self.convey.wait_exit(PATIENCE);
        assert!(has_program(&self.site.lb), "the program has gone with the daemon");
    }

    /// As systemd starts it; it must go on with what is there.
    #[track_caller]
    pub fn start_again(&mut self, plan: &Plan) {
        self.convey.start_again(&plan.config());
        let log = self.convey.stderr();
        assert!(log.contains(TAKEN_OVER), "{log}");
    }

    /// A new flow by every way.
    #[track_caller]
    pub fn meet_everywhere(&self, when: &str) -> Vec<Witness> {
        meet(&self.site.client, &everywhere(), when)
    }
}

/// A new flow to each address.
#[track_caller]
pub fn meet(client: &Host, to: &[SocketAddr], when: &str) -> Vec<Witness> {
    let one = |to: &SocketAddr| {
        Witness::meet(client, *to).unwrap_or_else(|error| panic!("{when}: no new flow to {to}: {error}"))
    };
    to.iter().map(one).collect()
}

/// All of these flows are as they were.
#[track_caller]
pub fn all_talk(flows: &mut [Witness], when: &str) {
    for flow in flows {
        let own = flow.stream().local_addr();
        flow.talk(b"still here").unwrap_or_else(|error| {
            panic!(
                "{when}: the flow of {own:?} to {} is broken: {error}",
                flow.server
            )
        });
    }
}

/// Connections of a frontend that are open by `convey status`.
#[track_caller]
pub fn open(convey: &Convey, frontend: &str) -> u64 {
    convey.traffic(frontend).connections_current
}

fn flows_live_on_and_new_ones_are_served_while_a_killed_convey_is_away() {
    by_the_program(|| {
        let site = Site::new("away", 2);
        let plan = Plan::new(&[WITNESS, ECHO], &site.servers);
        let mut stage = Stage::new(site, &plan);
        let place = attached(&stage.convey);
        let talkers = Talkers::start(&stage.site.client, &everywhere(), 4);
        assert_eq!(talkers.servers().len(), 2, "{:?}", talkers.servers());
        let asking = WAYS.map(|way| UdpClient::new(&stage.site.client, SocketAddr::new(vip(way), 7)));
        let ask_everywhere = |when: &str| {
            for (client, way) in asking.iter().zip(WAYS) {
                client
                    .ask(b"?")
                    .unwrap_or_else(|error| panic!("{when}: {way:?} by UDP: {error}"));
            }
        };
        ask_everywhere("at first");
        let mut over = stage.meet_everywhere("at first");
        stage.kill();
        let rules = process::rules(&stage.site.lb);
        assert!(rules.contains("CONVEY"), "{rules}");
        talkers.wait_round();
        ask_everywhere("while it is away");
        all_talk(&mut over, "while it is away");
        let mut begun = stage.meet_everywhere("while it is away");
        // some end as well
        over.clear();
        stage.start_again(&plan);
        assert_eq!(attached(&stage.convey), place);
        ask_everywhere("after it");
        all_talk(&mut begun, "after it");
        let mut new = stage.meet_everywhere("after it");
        all_talk(&mut new, "after it");
        talkers.expect_unbroken();
        let frontends = WAYS.map(|way| frontend_name("witness", way));
        // those of before, one that was begun while it was away, one since
        for frontend in &frontends {
            wait_until(&format!("{frontend} has what lives"), PATIENCE, || {
                open(&stage.convey, frontend) == 4 + 1 + 1
            });
        }
        drop((talkers, begun));
        for frontend in &frontends {
            wait_until(&format!("{frontend} has what is left"), PATIENCE, || {
                open(&stage.convey, frontend) == 1
            });
            let traffic = stage.convey.traffic(frontend);
            assert!(traffic.bytes_in > 0, "{traffic:?}");
        }
        all_talk(&mut new, "at last");
    });
}

/// `iperf3` at work, which prints what it has done ten times a second.
struct Bulk(Process);

impl Bulk {
    /// Begins to send, or to receive. Half of what the lab can do is left to the others.
    #[track_caller]
    fn start(host: &Host, to: SocketAddr, options: &str) -> Self {
        let (ip, port) = (to.ip(), to.port());
        let command = format!("exec iperf3 --forceflush -i 0.1 -b 100M -t 3600 -c {ip} -p {port} {options}");
        let mut bulk = Self(host.start(&command));
        bulk.goes_on();
        bulk
    }

    /// Intervals in which something has arrived.
    fn intervals(&self) -> usize {
        let said = self.0.stdout();
        let has_moved = |line: &&str| line.contains(" sec ") && !line.contains(" 0.00 Bytes");
        said.lines().filter(has_moved).count()
    }

    /// More has arrived since.
    #[track_caller]
    fn goes_on(&mut self) {
        let before = self.intervals();
        wait_until("iperf3 goes on", PATIENCE, || {
            if let Some(status) = self.0.ended() {
                panic!("iperf3: {status}\n{}{}", self.0.stdout(), self.0.stderr());
            }
            self.intervals() > before + 3
        });
    }
}

fn ten_thousand_idle_flows_bulk_and_requests_live_on_while_a_killed_convey_is_away() {
    const FLOWS_EACH: usize = 2_500;
    by_the_program(|| {
        let site = Site::new("crowd-away", 1);
        // the load balancer's own connections keep 10,000 ports
        (site.lb).run("echo 10000 19999 > /proc/sys/net/ipv4/ip_local_port_range");
        let (client, server) = (site.client.clone(), site.servers[0].clone());
        let _crowd = crowd::servers(&server, server.addr(99), 1, 2);
        let _nginx = Nginx::start(&server, "ok");
        let _iperf3 = ["5201", "5202"].map(|port| server.start(&format!("exec iperf3 -s -p {port}")));
        let crowd = Port::same("crowd", Transport::Tcp, 99);
        let more = Port::same("more", Transport::Tcp, 5202);
        let ways = [WAYS[0], WAYS[2]];
        let mut plan = Plan::new(&[WITNESS, WEB, BULK, more, crowd], &site.servers).by(&ways);
        plan.nat_ports = "20000-60999";
        "max_ports_per_client = \"off\"".clone_into(&mut plan.passthrough);
        let mut stage = Stage::new(site, &plan);
        let to = |turn: usize, port| SocketAddr::new(vip(ways[turn]), port);
        // as many of each mode
        let mut holders: Vec<Holder> = (0..4)
            .map(|number| {
                let own = client.ip4().into();
                Holder::start(&client, own, to(number % 2, 99), number as u64, FLOWS_EACH)
            })
            .collect();
        let all_right = Report {
            right: FLOWS_EACH as u64,
            failed: 0,
            wrong: 0,
        };
        let all_answer = |when: &str, holders: &mut Vec<Holder>| {
            for holder in holders {
                assert_eq!(holder.report(PATIENCE), all_right, "{when}: {}", holder.said());
            }
        };
        all_answer("at first", &mut holders);
        let loads = ways.map(|way| {
            let url = format!("http://{}/", SocketAddr::new(vip(way), 80));
            [true, false].map(|is_closing| Wrk::endless(&client, &url, 2, is_closing))
        });
        let mut bulk = [
            Bulk::start(&client, to(0, 5201), ""),
            Bulk::start(&client, to(0, 5202), "-R"),
        ];
        stage.kill();
        let since = Instant::now();
        while since.elapsed() < AWAY {
            meet(&client, &[to(0, 9), to(1, 9)], "while it is away");
        }
        bulk.iter_mut().for_each(Bulk::goes_on);
        stage.start_again(&plan);
        bulk.iter_mut().for_each(Bulk::goes_on);
        holders.iter_mut().for_each(Holder::ask);
        all_answer("after it", &mut holders);
        for load in loads.into_iter().flatten() {
            let report = load.stop();
            assert_eq!(report.errors, 0, "{}", report.text);
            assert!(report.requests > 0, "{}", report.text);
        }
        meet(&client, &[to(0, 9), to(1, 9)], "after it");
        for way in ways {
            let frontend = frontend_name("crowd", way);
            wait_until(&format!("{frontend} has all of the crowd"), PATIENCE, || {
                open(&stage.convey, &frontend) == 2 * FLOWS_EACH as u64
            });
        }
    });
}

fn a_restart_under_load_breaks_no_flow_and_refuses_no_new_one() {
    by_the_program(|| {
        let site = Site::new("restarts", 2);
        let _nginx: Vec<Nginx> = site.servers.iter().map(|host| Nginx::start(host, "ok")).collect();
        let plan = Plan::new(&[WITNESS, WEB], &site.servers);
        let mut stage = Stage::new(site, &plan);
        let talkers = Talkers::start(&stage.site.client, &everywhere(), 3);
        let loads = WAYS.map(|way| {
            let url = format!("http://{}/", SocketAddr::new(vip(way), 80));
            Wrk::endless(&stage.site.client, &url, 2, true)
        });
        for _ in 0..3 {
            stage.convey.signal(Signal::SIGTERM);
            let status = stage.convey.wait_exit(PATIENCE);
            assert!(status.success(), "{status}");
            talkers.wait_round();
            stage.start_again(&plan);
            talkers.expect_unbroken();
        }
        for load in loads {
            let report = load.stop();
            assert_eq!(report.errors, 0, "{}", report.text);
            assert!(report.requests > 0, "{}", report.text);
        }
        talkers.expect_unbroken();
    });
}

fn a_stop_for_good_takes_program_and_rules_away() {
    by_the_program(|| {
        let site = Site::new("stopped", 1);
        let plan = Plan::new(&[WITNESS], &site.servers);
        let mut stage = Stage::new(site, &plan);
        stage.meet_everywhere("at first");
        stage.convey.signal(Signal::SIGTERM);
        assert!(stage.convey.wait_exit(PATIENCE).success());
        // the unit's clean-up; then systemd drops what it keeps
        let cleared = stage.convey.tool("firewall clear");
        assert!(cleared.status.success(), "{cleared:?}");
        process::expect_nothing_left(&stage.site.lb);
        assert!(has_program(&stage.site.lb), "nobody has dropped it yet");
        let Stage { convey, site, .. } = stage;
        drop(convey);
        wait_until("the program is gone", PATIENCE, || !has_program(&site.lb));
    });
}

fn deaths_during_the_start_break_no_flow() {
    by_the_program(|| {
        let site = Site::new("deaths", 2);
        let plan = Plan::new(&[WITNESS], &site.servers);
        let mut stage = Stage::new(site, &plan);
        let talkers = Talkers::start(&stage.site.client, &everywhere(), 3);
        let mut begun = Vec::new();
        stage.kill();
        // from the first word to the last one
        for word in [
            "event=\"starting\"",
            "event=\"privileges_dropped\"",
            TAKEN_OVER,
            "event=\"xdp_attached\"",
            "event=\"ready\"",
        ] {
            stage.convey.launch_again(&plan.config());
            wait_until(word, PATIENCE, || stage.convey.stderr().contains(word));
            stage.kill();
            begun.append(&mut stage.meet_everywhere(word));
            talkers.wait_round();
        }
        stage.start_again(&plan);
        all_talk(&mut begun, "after it");
        talkers.expect_unbroken();
        let mut new = stage.meet_everywhere("after it");
        let each = (talkers.servers().values().sum::<usize>() + begun.len() + new.len()) / WAYS.len();
        for way in WAYS {
            let frontend = frontend_name("witness", way);
            wait_until(&format!("{frontend} has what lives"), PATIENCE, || {
                open(&stage.convey, &frontend) == each as u64
            });
        }
        all_talk(&mut new, "at last");
    });
}

fn a_death_in_the_middle_of_a_reload_breaks_no_flow() {
    const ROUNDS: u64 = 4;
    by_the_program(|| {
        let site = Site::new("half-reloaded", 3);
        let all = Plan::new(&[WITNESS, ECHO], &site.servers);
        let mut fewer = Plan::new(&[WITNESS], &site.servers);
        fewer.servers.remove(0);
        let mut stage = Stage::new(site, &all);
        let talkers = Talkers::start(&stage.site.client, &everywhere(), 6);
        assert_eq!(talkers.servers().len(), 3, "{:?}", talkers.servers());
        for round in 0..ROUNDS {
            let plans = if round % 2 == 0 {
                [&fewer, &all]
            } else {
                [&all, &fewer]
            };
            let convey = &stage.convey;
            thread::scope(|scope| {
                let reloads = scope.spawn(move || {
                    // until it dies
                    (0..)
                        .take_while(|turn| {
                            convey.write_config(&plans[turn % 2].config());
                            convey.cli("reload").status.success()
                        })
                        .count()
                });
                let before = convey.status().config_generation;
                wait_until("reloads are under way", PATIENCE, || {
                    convey.status().config_generation > before + round
                });
                convey.signal(Signal::SIGKILL);
                let count = reloads.join().expect("the reloads");
                assert!(count as u64 >= round, "{count} reloads in round {round}");
            });
            stage.convey.wait_exit(PATIENCE);
            talkers.wait_round();
            let _away = stage.meet_everywhere("while it is away");
            stage.start_again(&fewer);
            for _ in 0..4 {
                for met in stage.meet_everywhere("after it") {
                    assert_ne!(met.server, "a", "the configuration has it no more");
                }
            }
            talkers.expect_unbroken();
            stage.convey.reload(&all.config());
        }
        talkers.expect_unbroken();
    });
}

fn a_death_of_the_broker_breaks_no_flow() {
    by_the_program(|| {
        let site = Site::new("brokerless", 2);
        let plan = Plan::new(&[WITNESS], &site.servers);
        let mut stage = Stage::new(site, &plan);
        let talkers = Talkers::start(&stage.site.client, &everywhere(), 3);
        kill(stage.convey.broker(), Signal::SIGKILL).expect("kill the broker");
        let status = stage.convey.wait_exit(PATIENCE);
        assert!(!status.success(), "{status}");
        let mut begun = stage.meet_everywhere("while both are away");
        talkers.wait_round();
        stage.start_again(&plan);
        all_talk(&mut begun, "after it");
        stage.meet_everywhere("after it");
        talkers.expect_unbroken();
    });
}
