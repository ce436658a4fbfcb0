//! `ha/keepalived.conf` and `ha/keepalived.service.conf`: Debian's keepalived on both load balancers.

use convey::admin::views::FrontendState;
use nix::sys::signal::Signal;

use crate::{
    lab::{PATIENCE, Process, wait_until},
    machine::{Machine, Service},
    pair::{Pair, VIDEO, WEB, expect_alive, expect_valid, video_state},
    site::{keep_trying, read},
    tests,
};

/// Tests of `keepalived.conf`.
pub const CONF: &[crate::Test] = tests![
    the_addresses_move_when_convey_crashes_and_come_back_with_it,
    the_addresses_move_when_keepalived_is_killed,
];

/// Tests of `keepalived.service.conf`.
pub const SERVICE: &[crate::Test] = tests![a_connection_survives_a_stop_in_this_order];

/// The same, for systemd's own tool.
pub const UNIT: &[crate::Test] = tests![systemd_understands_it];

/// The pair at work: the first has the addresses, the second waits.
struct Site {
    keepalived: [Option<Process>; 2],
    convey: [Option<Service>; 2],
    pair: Pair,
}

impl Site {
    #[track_caller]
    fn new() -> Self {
        let pair = Pair::new(str::to_owned).on_link();
        let conf = read("ha/keepalived.conf");
        let backup = (conf.replace("state MASTER", "state BACKUP")).replace("priority 150", "priority 100");
        let [first, second] = pair.both();
        first.write("/etc/keepalived/keepalived.conf", &conf);
        second.write("/etc/keepalived/keepalived.conf", &backup);
        let convey = [first, second].map(|lb| Some(lb.convey("")));
        assert_eq!([first, second].map(video_state), [FrontendState::Waiting; 2]);
        let keepalived = [first, second].map(|lb| Some(start(lb)));
        let site = Self {
            keepalived,
            convey,
            pair,
        };
        site.wait_for(0);
        assert_eq!(
            video_state(&site.pair.second),
            FrontendState::Waiting,
            "the standby"
        );
        site
    }

    /// Waits until one of them has the addresses, alone, and serves.
    #[track_caller]
    fn wait_for(&self, holder: usize) {
        wait_until("the addresses are there", PATIENCE, || {
            self.pair.holder() == Some(holder)
        });
        self.wait_live(holder);
    }

    #[track_caller]
    fn wait_live(&self, holder: usize) {
        let lb = self.pair.both()[holder];
        wait_until("live", PATIENCE, || video_state(lb) == FrontendState::Live);
    }

    /// Clients come through both frontends now, which is the work of this load balancer.
    #[track_caller]
    fn expect_served_by(&self, holder: usize) {
        let totals = || {
            let frontends = self.pair.both()[holder].status().frontends;
            ["web", "video"].map(|name| frontends[name].traffic.connections_total)
        };
        let before = totals();
        for vip in [WEB, VIDEO] {
            // a client's router hears of the move when it has to
            keep_trying(&self.pair.site.client, vip, PATIENCE);
        }
        let after = totals();
        assert!(
            after[0] > before[0] && after[1] > before[1],
            "{before:?} and then {after:?}"
        );
    }
}

/// Starts keepalived as its service does; what it says goes to its output.
#[track_caller]
fn start(lb: &Machine) -> Process {
    lb.start("exec keepalived --dont-fork --log-console --log-detail")
}

fn systemd_understands_it() {
    expect_valid("keepalived.service", "ha/keepalived.service.conf");
}

fn the_addresses_move_when_convey_crashes_and_come_back_with_it() {
    let mut site = Site::new();
    site.expect_served_by(0);
    let mut witness = keep_trying(&site.pair.site.client, VIDEO, PATIENCE);
    site.convey[0].take().expect("it runs").crash();
    // the firewall rules stand, as for the restart of the service: nobody resets the connection meanwhile
    expect_alive(&mut witness);
    site.wait_for(1);
    site.expect_served_by(1);
    expect_alive(&mut witness);

    site.convey[0] = Some(site.pair.site.lb.convey(""));
    site.wait_for(0);
    site.expect_served_by(0);
    expect_alive(&mut witness);
}

fn the_addresses_move_when_keepalived_is_killed() {
    let mut site = Site::new();
    let mut witness = keep_trying(&site.pair.site.client, VIDEO, PATIENCE);
    // it takes nothing away from the interface: the other one must win all the same
    site.keepalived[0].take().expect("it runs").kill();
    wait_until("the other one has the addresses", PATIENCE, || {
        site.pair.second.has_address("192.0.2.90")
    });
    site.wait_live(1);
    site.expect_served_by(1);
    expect_alive(&mut witness);
}

fn a_connection_survives_a_stop_in_this_order() {
    let text = read("ha/keepalived.service.conf");
    for line in [
        "[Unit]",
        "StopPropagatedFrom=convey.service",
        "After=convey.service",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}");
    }
    let mut site = Site::new();
    let mut witness = keep_trying(&site.pair.site.client, VIDEO, PATIENCE);
    // what systemd makes of these lines at `systemctl stop convey`
    let mut keepalived = site.keepalived[0].take().expect("it runs");
    keepalived.signal(Signal::SIGTERM);
    keepalived.wait(PATIENCE);
    let convey = site.convey[0].take().expect("it runs");
    site.pair.site.lb.stop(convey);
    site.wait_for(1);
    expect_alive(&mut witness);
    site.expect_served_by(1);
    // and at `systemctl start convey`
    site.convey[0] = Some(site.pair.site.lb.convey(""));
    site.keepalived[0] = Some(start(&site.pair.site.lb));
    site.wait_for(0);
    expect_alive(&mut witness);
    site.expect_served_by(0);
}
