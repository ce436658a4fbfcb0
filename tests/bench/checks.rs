//! Health checks of 10,000 servers in 500 backends, every 2 s: what they cost Convey and HAProxy with the same servers, and
//! how evenly they come.
//!
//! A check is a TCP connect, counted by the kernel (ActiveOpens). The servers are on the load balancer's own loopback
//! interface, so that their half of each handshake is in the figure of both.

use std::{
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    fleet::{BACKENDS, SERVERS, config},
    lab::{Convey, Host, Lab, Process, fleet::Fleet, process::private_memory, wait_until},
    meter::{self, Meter},
    subjects::haproxy_globals,
    table::Spread,
};

/// Its name on the command line.
pub const LABEL: &str = "checks";

/// How long checks are watched: five rounds.
const WATCH: Duration = Duration::from_secs(10);

/// Pieces of that time in which checks are counted.
const PIECE: Duration = Duration::from_millis(100);

/// How long a load balancer is given to come to rest.
const SETTLE: Duration = Duration::from_secs(6);

/// What one of them showed.
struct Found {
    /// CPU milliseconds of the load balancer's core for 1,000 checks.
    cpu: f64,
    /// Checks a second.
    rate: f64,
    /// The busiest piece of time over the mean.
    burst: f64,
    /// MiB of its own.
    memory: f64,
}

enum Balancer {
    Convey(Convey),
    Haproxy(Process),
}

/// Measures so many times in turn, and gives the table.
pub fn measure(cells: usize) -> String {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..cells {
        theirs.push(cell(false));
        ours.push(cell(true));
    }
    let mut text = format!(
        "\nHealth checks of {SERVERS} servers in {BACKENDS} backends, a TCP connect every 2 s\n\n\
         | | CPU ms per 1,000 checks | checks a second | busiest {PIECE:?} over the mean | memory, MiB |\n|---|---|---|---|---|\n"
    );
    for (name, found) in [("Convey", &ours), ("HAProxy", &theirs)] {
        let spread = |figure: fn(&Found) -> f64| Spread::of(found.iter().map(figure).collect());
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            spread(|found| found.cpu),
            spread(|found| found.rate),
            spread(|found| found.burst),
            spread(|found| found.memory),
        );
    }
    let ratios = ours
        .iter()
        .zip(&theirs)
        .map(|(ours, theirs)| ours.cpu / theirs.cpu);
    let _ = writeln!(
        text,
        "\nCPU of Convey over HAProxy's: {}",
        Spread::of(ratios.collect())
    );
    text
}

fn cell(is_ours: bool) -> Found {
    let lab = Lab::new("checks");
    let lb = lab.host("lb");
    let _fleet = Fleet::start(&lb);
    let balancer = match is_ours {
        true => Balancer::start_ours(&lb),
        false => Balancer::start_haproxy(&lb),
    };
    thread::sleep(SETTLE);
    let (meter, began, first) = (Meter::start(), Instant::now(), active_opens(&lb));
    let mut pieces = Vec::new();
    let mut last = first;
    while began.elapsed() < WATCH {
        thread::sleep(PIECE);
        let now = active_opens(&lb);
        pieces.push(now - last);
        last = now;
    }
    let reading = meter.read();
    let checks = (last - first) as f64;
    let mean = checks / pieces.len() as f64;
    let found = Found {
        cpu: reading.busy * 1e6 / checks,
        rate: checks / reading.elapsed,
        burst: pieces.into_iter().max().unwrap_or(0) as f64 / mean,
        memory: private_memory(balancer.pid()) as f64 / f64::from(1 << 20),
    };
    let label = if is_ours { "convey" } else { "haproxy" };
    eprintln!(
        "  {LABEL:<18} {label:<15} {:.1} ms per 1,000, {:.0} a second, burst {:.2}, {:.1} MiB",
        found.cpu, found.rate, found.burst, found.memory
    );
    drop(balancer);
    meter::wait_for_rest();
    found
}

impl Balancer {
    fn start_ours(lb: &Host) -> Self {
        let mut convey = Convey::launch_with(lb, &config(1), &["taskset", "-c", "1"]);
        convey.wait_ready();
        Self::Convey(convey)
    }

    fn start_haproxy(lb: &Host) -> Self {
        let path = lb.path("haproxy.cfg");
        fs::write(&path, haproxy_config()).expect("its configuration");
        let process = lb.start(&format!("exec taskset -c 1 haproxy -db -f {}", path.display()));
        wait_until("haproxy listens", WATCH, || {
            lb.try_connect(([127, 0, 0, 1], 10_000).into()).is_ok()
        });
        Self::Haproxy(process)
    }

    fn pid(&self) -> nix::unistd::Pid {
        match self {
            Self::Convey(convey) => convey.pid(),
            Self::Haproxy(process) => process.pid(),
        }
    }
}

/// The servers of [`config`], and its times.
fn haproxy_config() -> String {
    // each server's check reserves a descriptor, and the limit here is 20,000
    let globals = haproxy_globals(false, false).replace("maxconn 9500", "maxconn 1000");
    let mut text = globals + "  default-server check inter 2s fastinter 1s rise 2 fall 3\n";
    for backend in 0..BACKENDS {
        let port = 10_000 + backend;
        let _ = writeln!(text, "listen b{backend}\n  bind 127.0.0.1:{port}");
        for server in 0..SERVERS / BACKENDS {
            let addr = Fleet::addr(backend * (SERVERS / BACKENDS) + server);
            let _ = writeln!(text, "  server s{server} {addr}");
        }
    }
    text
}

/// Connections that were opened from a host so far.
fn active_opens(host: &Host) -> u64 {
    host.kernel_count("Tcp", "ActiveOpens")
}
