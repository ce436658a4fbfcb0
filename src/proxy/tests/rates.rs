//! Connections that are no faster than they may be.

use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr},
    num::NonZeroU64,
    thread,
    time::{Duration, Instant},
};

use super::rig::{Rig, echo, pattern, read_all, server};
use crate::{base::TerminationReason as Reason, config::ConnectionRates};

/// Up and down, in bytes a second.
const fn rates(upload: u64, download: u64) -> ConnectionRates {
    ConnectionRates {
        upload: NonZeroU64::new(upload),
        download: NonZeroU64::new(download),
    }
}

/// A server that says so much and ends.
fn source(bytes: usize) -> SocketAddr {
    server(move |mut stream| {
        let _ = stream.write_all(&pattern(bytes));
    })
}

/// The least time for so many bytes, of which a burst of a tenth of a second costs none.
fn least(bytes: usize, per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / per_second as f64 - 0.11)
}

#[test]
fn a_download_takes_its_time_and_arrives_whole() {
    // copied, and spliced
    for (bytes, per_second) in [(300 << 10, 300_000), (24 << 20, 40_000_000)] {
        let rig = Rig::new(&[source(bytes)], |frontend, _| {
            frontend.rates = rates(0, per_second);
        });
        let (mut client, start) = (rig.client(), Instant::now());
        assert!(read_all(&mut client) == pattern(bytes));
        let took = start.elapsed();
        drop(client);
        assert!(took >= least(bytes, per_second), "{bytes} bytes in {took:?}");
        let record = rig.record();
        assert_eq!((record.reason, record.bytes_out), (Reason::Normal, bytes as u64));
    }
}

#[test]
fn an_upload_takes_its_time_whatever_the_other_way_may() {
    for (bytes, per_second) in [(300 << 10, 300_000), (24 << 20, 40_000_000)] {
        let rig = Rig::new(&[server(echo)], |frontend, _| {
            frontend.rates = rates(per_second, 0);
        });
        let (mut client, start) = (rig.client(), Instant::now());
        let mut writer = client.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&pattern(bytes)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&mut client) == pattern(bytes));
        writing.join().unwrap();
        let took = start.elapsed();
        assert!(took >= least(bytes, per_second), "{bytes} bytes in {took:?}");
    }
}

#[test]
fn what_a_client_sends_before_its_server_is_connected_counts() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.rates = rates(60_000, 0);
        // waiting for its rate is none of it
        frontend.idle_timeout = Some(Duration::from_millis(400));
    });
    let rates_hold = |bytes: usize| {
        let (mut client, start) = (rig.client(), Instant::now());
        // at once: it is there when the connection is accepted
        client.write_all(&pattern(bytes)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&mut client) == pattern(bytes));
        start.elapsed() >= least(bytes, 60_000)
    };
    assert!((0..3).all(|_| rates_hold(40_000)));
}

#[test]
fn what_waits_for_its_rate_is_not_idle() {
    let rig = Rig::new(&[source(60_000)], |frontend, _| {
        frontend.rates = rates(0, 50_000);
        frontend.idle_timeout = Some(Duration::from_millis(600));
    });
    assert_eq!(read_all(&mut rig.client()).len(), 60_000);
    assert_eq!(rig.record().reason, Reason::Normal);
}

#[test]
fn a_server_that_resets_is_heard_although_its_last_data_waits_for_its_rate() {
    let rig = Rig::new(
        &[server(|mut stream| {
            stream.write_all(&pattern(20_000)).unwrap();
            // until it has been read as far as it may
            thread::sleep(Duration::from_millis(100));
            crate::sys::tcp::reset_on_close(&stream);
        })],
        |frontend, _| frontend.rates = rates(0, 10_000),
    );
    let _client = rig.client();
    assert_eq!(rig.record().reason, Reason::ServerAbort);
}
