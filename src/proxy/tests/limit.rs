//! The limit of connections that the limit of open files sets.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::rig::{Rig, accept_queue, config, echo, read_all, server, wait_until};
use crate::{base::Endpoint, proxy::Descriptors};

/// Room for three connections, of one worker with one listener.
const THREE: Descriptors = Descriptors {
    limit: 48,
    open: 30,
    checks: 0,
};

/// A rig with room for three, three clients that have a server, and two that wait in the kernel.
fn full() -> (Rig, Vec<TcpStream>, Vec<TcpStream>) {
    let addr = server(echo);
    let rig = Rig::with(|listen| config(listen, &[addr], |_, _| {}), THREE);
    let served: Vec<_> = (0..3).map(|_| rig.client()).collect();
    wait_until("all have a server", || rig.server_totals(0).current == 3);
    let waiting: Vec<_> = (0..2).map(|_| rig.client()).collect();
    wait_until("the rest waits in the kernel", || {
        accept_queue(rig.addr) == 2 && rig.workers.occupancy().pauses > 0
    });
    (rig, served, waiting)
}

#[test]
fn above_the_limit_connections_wait_in_the_kernel_and_none_is_dropped() {
    let (rig, served, waiting) = full();
    let occupancy = rig.workers.occupancy();
    assert_eq!((occupancy.open, occupancy.most), (3, 3));
    let finish = |mut client: TcpStream| {
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), b"x");
    };
    served.into_iter().chain(waiting).for_each(finish);
    wait_until("all are closed", || rig.workers.open_connections() == 0);
    let totals = rig.snapshot.load().frontends["web"].live.counters.totals();
    assert_eq!((totals.opened, totals.accept_errors), (5, 0));
    assert_eq!(totals.ended[crate::base::TerminationReason::Normal as usize], 5);
}

#[test]
fn a_reload_while_the_limit_is_reached_cuts_and_admits_nobody() {
    let (mut rig, mut served, mut waiting) = full();
    let addr = server(echo);
    let reloaded = config(rig.addr, &[addr], |_, _| {});
    rig.reload(&reloaded);
    assert_eq!(accept_queue(rig.addr), 2);
    served.pop();
    // whoever comes next goes to the new server
    let mut next = waiting.remove(0);
    next.write_all(b"x").unwrap();
    next.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut next), b"x");
    assert!(rig.server_totals(0).opened > 0);
}

#[test]
fn a_listener_that_is_removed_while_the_limit_is_reached_resets_who_waits() {
    let (rig, served, mut waiting) = full();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(rig.workers.retire(Endpoint::tcp(rig.addr).into()));
    for client in &mut waiting {
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(rig.workers.open_connections(), served.len() as u64);
    // its descriptor is now one that connections may have
    assert_eq!(rig.workers.occupancy().most, 3);
}
