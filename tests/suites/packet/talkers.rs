//! Established flows under observation: connections that say something all the time and notice when they break.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crate::lab::{Host, PATIENCE, servers::Witness, wait_until};

/// Connections to witnesses that talk in turn until told to stop.
pub struct Talkers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    servers: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    rounds: AtomicU64,
    broken: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Talkers {
    /// Opens `each` connections to each address and lets them talk.
    #[track_caller]
    pub fn start(client: &Host, to: &[SocketAddr], each: usize) -> Self {
        let mut witnesses = Vec::new();
        for (addr, _) in to.iter().flat_map(|addr| (0..each).map(move |turn| (addr, turn))) {
            let witness = Witness::meet(client, *addr)
                .unwrap_or_else(|error| panic!("{} cannot meet {addr}: {error}", client.name()));
            // a broken flow may be broken in silence; a crowded one may have to send again and again
            witness
                .stream()
                .set_read_timeout(Some(PATIENCE))
                .expect("a time-out");
            witnesses.push((*addr, witness));
        }
        let mut servers = BTreeMap::new();
        for (_, witness) in &witnesses {
            *servers.entry(witness.server.clone()).or_default() += 1;
        }
        let shared = Arc::<Shared>::default();
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.talk(witnesses))
        };
        Self {
            shared,
            thread: Some(thread),
            servers,
        }
    }

    /// How many connections each server got.
    pub fn servers(&self) -> &BTreeMap<String, usize> {
        &self.servers
    }

    /// What broke so far, by server.
    pub fn broken(&self) -> BTreeMap<String, Vec<String>> {
        self.shared.broken.lock().expect("what broke").clone()
    }

    /// Waits until every connection has talked once more from now on.
    #[track_caller]
    pub fn wait_round(&self) {
        let rounds = || self.shared.rounds.load(Ordering::Relaxed);
        let now = rounds();
        wait_until("everybody has talked", PATIENCE, || rounds() >= now + 2);
    }

    /// All of them must be unbroken, now and after one more round.
    #[track_caller]
    pub fn expect_unbroken(&self) {
        self.wait_round();
        let broken = self.broken();
        assert!(
            broken.is_empty(),
            "flows broke: {broken:#?} of {:?}",
            self.servers
        );
    }

    /// Only flows to this server may be broken.
    #[track_caller]
    pub fn expect_unbroken_but(&self, server: &str) {
        self.wait_round();
        let mut broken = self.broken();
        broken.remove(server);
        assert!(broken.is_empty(), "flows to healthy servers broke: {broken:#?}");
    }
}

impl Drop for Talkers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn talk(&self, mut witnesses: Vec<(SocketAddr, Witness)>) {
        let mut word = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            witnesses.retain_mut(|(to, witness)| {
                word += 1;
                let result = witness.talk(&word.to_le_bytes());
                if let Err(error) = &result {
                    let own = witness.stream().local_addr();
                    self.broken
                        .lock()
                        .expect("what broke")
                        .entry(witness.server.clone())
                        .or_default()
                        .push(format!("{own:?} to {to}, seen from {}: {error}", witness.seen));
                }
                result.is_ok() && !self.stop.load(Ordering::Relaxed)
            });
            self.rounds.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
