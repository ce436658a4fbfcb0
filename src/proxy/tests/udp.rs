//! UDP sessions of two workers.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::Arc,
    thread,
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::rig::{PLENTY, Records, parsed, wait_until};
use crate::{
    PATIENCE,
    base::{DatagramDrop, Endpoint, SocketOptions, TerminationReason},
    pools::Pools,
    proxy::{Descriptors, NoSockets, Select, Workers},
    snapshot::{Builder, Snapshot, live::Totals},
    sys::udp_socket,
};

struct Udp {
    addr: SocketAddr,
    workers: Workers,
    snapshot: Arc<ArcSwap<Snapshot>>,
    records: Arc<Records>,
}

/// Gives back what it gets, its letter in front.
fn server(letter: u8) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2_048];
        buffer[0] = letter;
        while let Ok((length, from)) = socket.recv_from(&mut buffer[1..]) {
            let _ = socket.send_to(&buffer[..=length], from);
        }
    });
    addr
}

impl Udp {
    fn new(settings: &str, descriptors: Descriptors) -> Self {
        let socket =
            udp_socket::listen("127.0.0.1:0".parse().unwrap(), None, SocketOptions::default()).unwrap();
        let addr = udp_socket::address_of(socket.as_fd()).unwrap();
        let config = parsed(&format!(
            "[frontends.echo]\nprotocol = \"udp\"\nlisten_addr = \"{addr}\"\nbackend = \"pool\"\n{settings}\n\
             [backends.pool]\nservers.a = {{ addr = \"{}\" }}\nservers.b = {{ addr = \"{}\" }}\n",
            server(b'a'),
            server(b'b')
        ));
        let pools = Pools::of(&config);
        let mut builder = Builder::new(2, Arc::default());
        builder.config_changed(&config, config.backends.keys().cloned());
        let first = builder.build(&config, &pools, Instant::now()).snapshot;
        let snapshot = Arc::new(ArcSwap::new(first));
        let records = Arc::new(Records::default());
        let access = Arc::clone(&records) as _;
        let (events, _) = mpsc::channel(16);
        let workers = Workers::start(
            2,
            Arc::clone(&snapshot),
            access,
            events,
            descriptors,
            Arc::new(NoSockets),
        )
        .unwrap();
        workers.listen(
            Endpoint::udp(addr).into(),
            vec![
                socket,
                udp_socket::listen(addr, None, SocketOptions::default()).unwrap(),
            ],
        );
        Self {
            addr,
            workers,
            snapshot,
            records,
        }
    }

    fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(self.addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn totals(&self) -> Totals {
        let snapshot = self.snapshot.load();
        snapshot.frontends["echo"].live.counters.totals()
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

fn ask(client: &UdpSocket) -> u8 {
    client.send(b"x").unwrap();
    let mut buffer = [0; 9];
    assert_eq!(client.recv(&mut buffer).unwrap(), 2);
    buffer[0]
}

#[test]
fn a_datagram_that_comes_to_another_worker_is_handed_over_to_its_session() {
    let udp = Udp::new("", PLENTY);
    let clients: Vec<_> = (0..40).map(|_| udp.client()).collect();
    let first: Vec<u8> = clients.iter().map(ask).collect();
    assert!(first.contains(&b'a') && first.contains(&b'b'));
    // the kernel gives the datagrams of half of them to other sockets now
    let more = (0..2).map(|_| udp_socket::listen(udp.addr, None, SocketOptions::default()).unwrap());
    udp.workers.listen(Endpoint::udp(udp.addr).into(), more.collect());
    for _ in 0..3 {
        let again: Vec<u8> = clients.iter().map(ask).collect();
        assert_eq!(again, first);
    }
    let totals = udp.totals();
    assert_eq!((totals.opened, totals.current), (40, 40));
    assert_eq!((totals.datagrams_in, totals.datagrams_out), (160, 160));
    assert_eq!(totals.lost, [0; DatagramDrop::ALL.len()]);
}

#[test]
fn sessions_of_all_workers_are_ended_by_order_and_reported() {
    let udp = Udp::new("", PLENTY);
    let clients: Vec<_> = (0..10).map(|_| udp.client()).collect();
    for client in &clients {
        ask(client);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (total, listed) = runtime.block_on(udp.workers.connections(Arc::new(|_| true), 4));
    assert_eq!((total, listed.len()), (10, 4));
    assert!(
        listed
            .iter()
            .all(|session| session.local.is_some() && session.idle.is_some())
    );
    let closed = runtime.block_on(udp.workers.close(&Select::All, TerminationReason::Killed));
    assert_eq!((closed, udp.workers.open_connections()), (10, 0));
    let records = udp.records.0.lock().unwrap();
    assert_eq!(records.len(), 10);
    let whole = |record: &crate::base::AccessRecord| {
        (record.datagrams, record.bytes_in, record.bytes_out) == (Some((1, 1)), 1, 2)
    };
    assert!(records.iter().all(whole), "{records:?}");
}

#[test]
fn a_session_takes_its_part_of_the_descriptors() {
    let few = Descriptors {
        limit: 200,
        open: 20,
        checks: 0,
    };
    let udp = Udp::new("", few);
    // 200 less 30, less 64 kept back, less 5 pipes of each worker, less a listener of each
    let most = 84;
    wait_until("both workers listen", || udp.workers.occupancy().most == most / 2);
    // a fourth is for connections alone
    let most = most * 3 / 4;
    let clients: Vec<_> = (0..most).map(|_| udp.client()).collect();
    for client in &clients {
        ask(client);
    }
    udp.client().send(b"x").unwrap();
    wait_until("one more is dropped and counted", || {
        udp.totals().lost[DatagramDrop::ProcessFull as usize] == 1
    });
    for client in &clients {
        ask(client);
    }
    assert_eq!(udp.totals().opened, u64::from(most));
}
