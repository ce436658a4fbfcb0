//! Clients that come, talk, and go in different ways, and remember what went wrong.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{ECHO, random::Random};
use crate::{
    lab::{Host, PATIENCE, servers::Witness, udp::UdpClient, wait_until},
    site::{WAYS, vip},
};

/// Clients on each host.
const EACH: usize = 6;
/// A datagram or its answer is lost.
/// After so long a SYN without an answer is sent again (RFC 6298, section 2).
const SYN_AGAIN: Duration = Duration::from_secs(1);
const LOST: Duration = Duration::from_millis(500);

/// A connection that failed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where it went.
    pub to: SocketAddr,
    /// The server, if one had answered.
    pub server: Option<String>,
    /// When all was well for the last time.
    pub from: Instant,
    /// When it was seen to have failed.
    pub until: Instant,
    /// How.
    #[expect(dead_code, reason = "shown when nothing explains it")]
    pub what: String,
}

/// Connections to one address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    /// Those that a server has answered.
    pub connected: u64,
    /// Those that came to nothing.
    pub failed: u64,
    /// Those that took so long that their SYN was sent again: a new flow if the first one's server went down meanwhile.
    pub repeated: u64,
}

/// Clients at work.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How a connection ended: if badly, with the server's name if it came to one, and what was said.
type Talk = Result<(), (Option<String>, String)>;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Of each client, the connections and questions that went well.
    rounds: Vec<AtomicU64>,
    live: Mutex<BTreeMap<usize, (SocketAddr, SocketAddr)>>,
    counts: Mutex<BTreeMap<SocketAddr, Count>>,
    failed: Mutex<Vec<Outcome>>,
}

impl Clients {
    /// Starts them on each host, to all of these addresses; and some of UDP on the first host.
    pub fn start(hosts: &[&Host], to: &[SocketAddr], random: &mut Random) -> Self {
        let talking = hosts.len() * EACH;
        let shared = Arc::new(Shared {
            rounds: (0..talking + WAYS.len()).map(|_| AtomicU64::new(0)).collect(),
            ..Shared::default()
        });
        let mut threads = Vec::new();
        for number in 0..talking {
            let (host, to) = (hosts[number / EACH].clone(), to.to_vec());
            let (shared, random) = (Arc::clone(&shared), Random::new(random.next()));
            threads.push(thread::spawn(move || {
                shared.be_client(number, &host, &to, random);
            }));
        }
        for (way, number) in WAYS.into_iter().zip(talking..) {
            let (host, shared) = (hosts[0].clone(), Arc::clone(&shared));
            let to = SocketAddr::new(vip(way), ECHO.port);
            threads.push(thread::spawn(move || shared.ask(number, &host, to)));
        }
        Self {
            shared,
            threads: Mutex::new(threads),
        }
    }

    /// Both ends of what is open now, the client's first.
    pub fn live(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.shared
            .live
            .lock()
            .expect("what is live")
            .values()
            .copied()
            .collect()
    }

    /// Waits until every client was served twice from now on.
    pub fn wait_round(&self) {
        let rounds = || {
            self.shared
                .rounds
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
        };
        let before: Vec<u64> = rounds().collect();
        wait_until("every client is served", PATIENCE, || {
            rounds().zip(&before).all(|(now, before)| now >= before + 2)
        });
    }

    /// Lets them end; what has failed.
    pub fn stop(&self) -> Vec<Outcome> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.lock().expect("the clients").drain(..) {
            thread.join().expect("a client");
        }
        self.shared.failed.lock().expect("what failed").clone()
    }

    /// Connections by where they went.
    pub fn counts(&self) -> BTreeMap<SocketAddr, Count> {
        self.shared.counts.lock().expect("the counts").clone()
    }
}

impl Shared {
    fn be_client(&self, number: usize, host: &Host, to: &[SocketAddr], mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            let to = *random.one_of(to);
            let (from, is_slow, outcome) = self.connect_and_talk(number, host, to, &mut random);
            self.live.lock().expect("what is live").remove(&number);
            let mut counts = self.counts.lock().expect("the counts");
            let count = counts.entry(to).or_default();
            count.repeated += u64::from(is_slow);
            match &outcome {
                Err((None, _)) => count.failed += 1,
                _ => count.connected += 1,
            }
            drop(counts);
            match outcome {
                Ok(()) => {
                    self.rounds[number].fetch_add(1, Ordering::Relaxed);
                }
                Err((server, what)) => self.failed.lock().expect("what failed").push(Outcome {
                    to,
                    server,
                    from,
                    until: Instant::now(),
                    what,
                }),
            }
            thread::sleep(random.pause(100));
        }
    }

    /// When all was well for the last time, whether connecting took long, and how it ended: with the server's name, if it came
    /// to one.
    fn connect_and_talk(
        &self,
        number: usize,
        host: &Host,
        to: SocketAddr,
        random: &mut Random,
    ) -> (Instant, bool, Talk) {
        let mut well = Instant::now();
        let met = host.inside(|| {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Witness::hear(stream)
        });
        let is_slow = well.elapsed() >= SYN_AGAIN;
        let mut witness = match met {
            Ok(witness) => witness,
            Err(error) => return (well, is_slow, Err((None, error.to_string()))),
        };
        if let Ok(own) = witness.stream().local_addr() {
            self.live.lock().expect("what is live").insert(number, (own, to));
        }
        for turn in 0..1 + random.below(40) as u64 {
            if let Err(error) = witness.talk(&turn.to_le_bytes()) {
                return (well, is_slow, Err((Some(witness.server), error.to_string())));
            }
            well = Instant::now();
            thread::sleep(random.pause(60));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        if random.below(8) == 0 {
            witness.reset();
            return (well, is_slow, Ok(()));
        }
        let ended = witness
            .stream()
            .shutdown(Shutdown::Write)
            .and_then(|()| witness.rest());
        (
            well,
            is_slow,
            match ended {
                Ok(rest) if rest.is_empty() => Ok(()),
                Ok(rest) => Err((Some(witness.server), format!("{} bytes too many", rest.len()))),
                Err(error) => Err((Some(witness.server), error.to_string())),
            },
        )
    }

    /// Questions, of which some may be lost.
    fn ask(&self, number: usize, host: &Host, to: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let client = UdpClient::new(host, to);
            client.socket().set_read_timeout(Some(LOST)).expect("a time-out");
            for turn in 0..20_u64 {
                if client.ask(&turn.to_le_bytes()).is_ok() {
                    self.rounds[number].fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Whether an address is one that packet modes serve.
pub fn is_vip(ip: IpAddr) -> bool {
    WAYS.iter().any(|way| vip(*way) == ip)
}
