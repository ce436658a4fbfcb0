//! Speed in the lab: Convey against HAProxy and nginx, and its packet modes against the kernel's nftables, as load
//! balancer CPU per unit of work.
//!
//! ```text
//! cargo bench                                  every row, 3 cells of ours against each peer
//! cargo bench -- --cells 9                     the figures of record
//! cargo bench -- --rows connections --peers haproxy --seconds 5
//! cargo bench -- --rows sni                    routing by the name in a ClientHello, TLS is the servers'
//! cargo bench -- --rows tls-full-p256,tls-full-rsa,tls-full-p256-pq,tls-resumed,tls-requests,tls-bulk,tls-bulk-chacha20,tls-idle
//! cargo bench -- --subject nginx               measures a peer in Convey's place: proves the bench
//! cargo bench -- --hurry yes                   on a busy machine: proves the bench, its figures mean nothing
//! cargo bench -- --rows echoes,lone-packet --peers nft-nat,nft-stateless,direct
//! cargo bench -- --rows echoes,connections --subject xdp-passthrough --peers passthrough,nft-nat    the program behind the driver
//! CONVEY_EARLIER=PATH cargo bench -- --peers earlier,earlier-passthrough,earlier-dsr --cells 15      no worse than that?
//! cargo bench -- --rows fleet-start,fleet-reload,fleet-down,fleet-up          10,000 servers, no peer
//! cargo bench -- --rows checks                                                health checks of 10,000 servers, with HAProxy
//! cargo bench -- --rows flood-none,flood-slow,flood-fast --seconds 20         honest clients beside forged ones
//! cargo bench -- --rows udp,udp-window,udp-bursts,udp-10000 --peers nginx                     UDP in mode proxy
//! cargo bench -- --rows failover                                              a router that changes under many flows
//! cargo bench -- --rows churn-server-first,churn-client-first --seconds 60    NAT ports that come round
//! ```
//!
//! The load balancer has CPU 1 to itself, clients and servers share CPU 0. Two cores are not enough to saturate the
//! load balancer, and the host drifts, so what counts is CPU time of the load balancer's core (elapsed less idle: tick
//! sampling misses softirqs) per unit of work, as a ratio, each cell of ours between two of the peer's.

#[path = "../lab/mod.rs"]
mod lab;

mod checks;
mod churn;
mod datagrams;
mod failover;
mod fleet;
mod flood;
mod meter;
mod names;
mod packets;
mod rig;
mod rows;
mod subjects;
mod table;
mod tls;
mod tls_client;

use churn::Churn;
use fleet::Moment;
use flood::Flood;
use rig::Rig;
use rows::{Cell, Row};
use subjects::Subject;
use table::Comparison;

struct Options {
    subject: Subject,
    peers: Vec<Subject>,
    rows: Vec<Row>,
    moments: Vec<Moment>,
    churns: Vec<Churn>,
    floods: Vec<Flood>,
    failover: bool,
    checks: bool,
    cells: usize,
    seconds: u32,
    hurry: bool,
}

fn main() {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            std::process::exit(64);
        }
    };
    let peers = if options.rows.is_empty() {
        None
    } else {
        rig::why_not()
    };
    if let Some(reason) = lab::why_not().or(peers) {
        eprintln!("SKIPPED: the bench cannot run here: {reason}");
        std::process::exit(69);
    }
    rig::pin_to_load_cpu();
    eprintln!("{}", meter::calibrate());
    let mut comparisons = Vec::new();
    for row in &options.rows {
        for peer in options.peers.iter().filter(|peer| row.concerns(**peer)) {
            for ours in row.ours(options.subject, *peer) {
                let comparison = compare(*row, ours, *peer, &options);
                eprintln!("{}", comparison.line());
                comparisons.push(comparison);
            }
        }
    }
    if !comparisons.is_empty() {
        print!("{}", table::markdown(&comparisons));
    }
    print!("{}", churn::measure(&options.churns, options.seconds));
    print!("{}", flood::measure(&options.floods, options.seconds));
    if options.failover {
        print!("{}", failover::measure(options.cells));
    }
    print!("{}", fleet::measure(&options.moments, options.cells));
    if options.checks {
        print!("{}", checks::measure(options.cells));
    }
}

/// Peer, ours, peer, ours, …, peer.
fn compare(row: Row, ours: Subject, peer: Subject, options: &Options) -> Comparison {
    let measure = |subject: Subject| -> Cell {
        let cell = if options.hurry {
            row.measure(&Rig::new(), subject, options.seconds)
        } else {
            undisturbed(row, subject, options.seconds)
        };
        eprintln!("  {:<18} {:<15} {cell}", row.label(), subject.label());
        cell
    };
    let mut comparison = Comparison::new(row, ours, peer);
    comparison.theirs.push(measure(peer));
    for _ in 0..options.cells.min(row.enough_cells()) {
        comparison.ours.push(measure(ours));
        comparison.theirs.push(measure(peer));
    }
    comparison
}

/// Repeats a cell during which something else used the load balancer's CPU, as far as looking before and after tells.
fn undisturbed(row: Row, subject: Subject, seconds: u32) -> Cell {
    for _ in 0..5 {
        meter::wait_for_rest();
        let rig = Rig::new();
        let cell = row.measure(&rig, subject, seconds);
        // before the rig goes: the kernel takes namespaces down in the background, on any CPU
        if meter::is_at_rest() {
            return cell;
        }
        eprintln!("  disturbed by other work on this machine: once more ({cell})");
    }
    eprintln!("  WARNING: the machine is busy with other work, the next figure means little");
    meter::wait_for_rest();
    row.measure(&Rig::new(), subject, seconds)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        subject: Subject::Convey,
        peers: Subject::PEERS.to_vec(),
        rows: Row::ALL.to_vec(),
        moments: Moment::ALL.to_vec(),
        churns: Churn::ALL.to_vec(),
        floods: Flood::ALL.to_vec(),
        failover: true,
        checks: true,
        cells: 3,
        seconds: 3,
        hurry: false,
    };
    while let Some(argument) = arguments.next() {
        // cargo adds --bench
        if argument == "--bench" {
            continue;
        }
        let value = arguments.next().ok_or(format!("{argument} needs a value"))?;
        let number = || {
            value
                .parse()
                .map_err(|_| format!("{argument} {value}: not a number"))
        };
        match argument.as_str() {
            "--subject" => options.subject = Subject::parse(&value)?,
            "--peers" => options.peers = value.split(',').map(Subject::parse).collect::<Result<_, _>>()?,
            "--rows" => choose(&value, &mut options)?,
            "--cells" => options.cells = number()? as usize,
            "--seconds" => options.seconds = number()?,
            "--hurry" => options.hurry = value == "yes",
            _ => {
                return Err(format!(
                    "{argument}: unknown; see the first lines of tests/bench/main.rs"
                ));
            }
        }
    }
    Ok(options)
}

/// Takes rows that have peers, moments of the fleet, and connections that are over at once, and floods.
fn choose(labels: &str, options: &mut Options) -> Result<(), String> {
    (options.rows, options.moments, options.churns, options.floods) = Default::default();
    (options.failover, options.checks) = (false, false);
    for label in labels.split(',') {
        if let Some(moment) = Moment::ALL.into_iter().find(|moment| moment.label() == label) {
            options.moments.push(moment);
        } else if let Some(churn) = Churn::ALL.into_iter().find(|churn| churn.label() == label) {
            options.churns.push(churn);
        } else if let Some(flood) = Flood::ALL.into_iter().find(|flood| flood.label() == label) {
            options.floods.push(flood);
        } else if label == failover::LABEL {
            options.failover = true;
        } else if label == checks::LABEL {
            options.checks = true;
        } else {
            options.rows.push(Row::parse(label)?);
        }
    }
    Ok(())
}
