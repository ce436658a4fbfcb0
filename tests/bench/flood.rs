//! Honest clients while somebody sends SYNs from forged addresses: how long they wait for a connection, and whether
//! connections that stand lose anything. Each mode, and the kernel's NAT.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{
        Family,
        forge::{Forger, SYN, nobodies},
    },
    packets,
    rig::Rig,
    subjects::Subject,
};

/// How fast the SYNs come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// None: what there is to compare with.
    None,
    /// 300 a second.
    Slow,
    /// As many as the lab can send.
    Fast,
}

/// What honest clients saw.
struct Seen {
    /// Forged SYNs a second.
    rate: f64,
    /// Milliseconds until connected, sorted.
    waits: Vec<f64>,
    /// Connects that failed.
    failed: u64,
    /// Standing connections that missed an answer.
    broken: usize,
}

/// Clients at once, and standing connections.
const HONEST: usize = 4;
const STANDING: usize = 50;
/// How long a client waits for its connection.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

impl Flood {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Slow, Self::Fast];

    /// Its name on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "flood-none",
            Self::Slow => "flood-slow",
            Self::Fast => "flood-fast",
        }
    }

    /// Sends for a while; how many.
    fn strike(self, forger: &Forger, crowd: &mut impl Iterator<Item = SocketAddr>, to: SocketAddr) -> u64 {
        match self {
            Self::None => {
                thread::sleep(Duration::from_millis(10));
                0
            }
            Self::Slow => {
                let from = crowd.next().expect("one more");
                forger.tcp(from, to, SYN, u32::from(from.port()), 0);
                thread::sleep(Duration::from_micros(3_300));
                1
            }
            Self::Fast => {
                forger.flood(to, 10_000);
                10_000
            }
        }
    }
}

/// Measures each, and gives the table.
pub fn measure(floods: &[Flood], seconds: u32) -> String {
    if floods.is_empty() {
        return String::new();
    }
    let mut text = "\n| flood | of | forged SYNs/s | connects | failed | p50, ms | p99 | longest | standing ones broken |\n\
         |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for flood in floods {
        for subject in [
            Subject::Passthrough,
            Subject::NftNat,
            Subject::Dsr,
            Subject::Convey,
        ] {
            let seen = besieged(*flood, subject, Duration::from_secs(seconds.into()));
            eprintln!("  {:<12} {:<12} {seen}", flood.label(), subject.label());
            text += &format!("| {} | {} | {seen} |\n", flood.label(), subject.label());
        }
    }
    text
}

fn besieged(flood: Flood, subject: Subject, time: Duration) -> Seen {
    let rig = Rig::new();
    let _lb = subject.start(&rig, false);
    let to = packets::target(&rig, subject, 80);
    let attacker = rig.another("attacker");
    // answers to the forged addresses go somewhere
    rig.lb
        .run(&format!("ip route add 11.0.0.0/8 via {}", attacker.ip4()));
    let forger = Forger::new(&attacker);
    let siege = Arc::<Siege>::default();
    let standing: Vec<TcpStream> = (0..STANDING).map(|_| rig.client.connect(to)).collect();
    let talk = thread::spawn({
        let siege = Arc::clone(&siege);
        move || siege.talk(standing)
    });
    let strike = thread::spawn({
        let siege = Arc::clone(&siege);
        move || siege.strike(flood, &forger, to)
    });
    let start = Instant::now();
    let visitors: Vec<_> = (0..HONEST)
        .map(|_| {
            let siege = Arc::clone(&siege);
            rig.client.thread(move || siege.visit(to, start + time))
        })
        .collect();
    let mut waits: Vec<f64> = (visitors.into_iter())
        .flat_map(|visitor| visitor.join().expect("a client"))
        .collect();
    let elapsed = start.elapsed().as_secs_f64();
    siege.is_over.store(true, Relaxed);
    waits.sort_by(f64::total_cmp);
    strike.join().expect("the flood");
    Seen {
        rate: siege.sent.load(Relaxed) as f64 / elapsed,
        waits,
        failed: siege.failed.load(Relaxed),
        broken: talk.join().expect("the standing ones"),
    }
}

#[derive(Default)]
struct Siege {
    is_over: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Siege {
    fn strike(&self, flood: Flood, forger: &Forger, to: SocketAddr) {
        let mut crowd = nobodies(Family::V4, 7);
        while !self.is_over.load(Relaxed) {
            self.sent.fetch_add(flood.strike(forger, &mut crowd, to), Relaxed);
        }
    }

    /// Connects again and again; the times in milliseconds.
    fn visit(&self, to: SocketAddr, until: Instant) -> Vec<f64> {
        let mut waits = Vec::new();
        while Instant::now() < until {
            match visit(to) {
                Some(wait) => waits.push(wait.as_secs_f64() * 1e3),
                None => {
                    self.failed.fetch_add(1, Relaxed);
                }
            }
            thread::sleep(PAUSE);
        }
        waits
    }

    /// Lets connections talk in turn; how many missed an answer for [`PATIENCE`] or were cut.
    fn talk(&self, mut standing: Vec<TcpStream>) -> usize {
        let all = standing.len();
        while !self.is_over.load(Relaxed) {
            standing.retain_mut(|stream| {
                let mut answer = [0; 1_024];
                stream.set_read_timeout(Some(PATIENCE)).is_ok()
                    && stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
                    && matches!(stream.read(&mut answer), Ok(1..))
            });
            thread::sleep(Duration::from_millis(50));
        }
        all - standing.len()
    }
}

/// One connection with a request; the time until it stood.
fn visit(to: SocketAddr) -> Option<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    let wait = start.elapsed();
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    answer.starts_with(b"HTTP/1.1 200").then_some(wait)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: f64| {
            let last = self.waits.len().saturating_sub(1);
            self.waits
                .get((last as f64 * part) as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        write!(
            f,
            "{:.0} | {} | {} | {:.2} | {:.2} | {:.0} | {}",
            self.rate,
            self.waits.len(),
            self.failed,
            at(0.5),
            at(0.99),
            at(1.0),
            self.broken,
        )
    }
}
