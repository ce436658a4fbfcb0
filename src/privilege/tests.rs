//! The daemon's end against a broker that is late, silent or gone.

use std::{
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

use super::{
    BrokerError, Changed, Channel, Client, News, What,
    message::{Outcome, Reply, Request, Verb, decode, encode},
};
use crate::{
    base::PortRanges,
    sys::{fdpass, memfd},
};

/// A channel whose calls are given up after a moment, and the broker's end of it.
fn pair() -> (Channel, OwnedFd) {
    let (ours, theirs) = fdpass::pair().unwrap();
    fdpass::set_timeout(ours.as_fd(), Duration::from_millis(20)).unwrap();
    (Channel::over(ours, 1, "convey.toml".to_owned()), theirs)
}

fn config_changed() -> Changed {
    Changed {
        files: [What::Config].into(),
        rules: false,
    }
}

fn take(broker: &OwnedFd) -> Request {
    decode(&fdpass::receive(broker.as_fd()).unwrap().0).unwrap()
}

fn say(broker: &OwnedFd, number: u64, outcome: Outcome, fds: &[&OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let reply = encode(&Reply { number, outcome }).unwrap();
    fdpass::send(broker.as_fd(), &reply, &fds).unwrap();
}

#[test]
fn a_late_answer_is_skipped_and_what_comes_with_it_closed() {
    let (channel, broker) = pair();
    let silent = channel.packet_socket("eth0");
    assert!(matches!(silent, Err(BrokerError::Silent(_))), "{silent:?}");
    // nothing more is asked of a broker that owes an answer
    assert!(matches!(
        channel.release_packet_sockets("eth0"),
        Err(BrokerError::Silent(_))
    ));
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    assert_eq!(take(&broker).verb, Verb::PacketSocket("eth0".to_owned()));
    say(&broker, 1, Outcome::PacketSocket, &[&writer]);
    drop(writer);

    let answering = thread::spawn(move || {
        let request = take(&broker);
        say(&broker, request.number, Outcome::Done, &[]);
        request
    });
    channel.release_packet_sockets("eth0").unwrap();
    let request = answering.join().unwrap();
    assert_eq!(
        (request.number, request.verb),
        (2, Verb::ReleasePacketSockets("eth0".to_owned()))
    );
    assert_eq!(
        std::io::read_to_string(reader).unwrap(),
        "",
        "nobody holds the socket any more"
    );
}

#[test]
fn an_answer_to_what_was_never_asked_is_the_loss_of_the_broker() {
    let (channel, broker) = pair();
    say(&broker, 7, Outcome::Done, &[]);
    let lost = channel.release_packet_sockets("eth0").unwrap_err();
    assert!(matches!(lost, BrokerError::Lost(_)), "{lost}");
}

#[test]
fn news_come_between_request_and_answer_and_are_kept() {
    let (channel, broker) = pair();
    say(&broker, 0, Outcome::Changed(What::Config), &[]);
    say(&broker, 1, Outcome::Done, &[]);
    channel.release_packet_sockets("eth0").unwrap();
    assert_eq!(channel.news().unwrap(), config_changed());
    assert!(channel.news().unwrap().is_empty());
}

/// Runs within a runtime as the control loop's.
fn with_client<T>(channel: Channel, test: impl AsyncFnOnce(Client, super::BrokerNews) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (client, news) = Client::start(channel).unwrap();
    runtime.block_on(test(client, news))
}

#[test]
fn the_client_says_what_the_broker_says_unasked_and_that_it_is_gone() {
    let (channel, broker) = pair();
    with_client(channel, async |client, mut news| {
        say(&broker, 0, Outcome::Changed(What::Config), &[]);
        assert_eq!(news.next().await, News::Changed(config_changed()));
        drop(broker);
        assert!(matches!(news.next().await, News::Lost(_)));
        let read = client.read(What::Config).await;
        assert!(matches!(read, Err(BrokerError::Lost(_))), "{read:?}");
    });
}

#[test]
fn a_request_that_nobody_waits_for_is_not_made() {
    let (ours, broker) = fdpass::pair().unwrap();
    let channel = Channel::over(ours, 1, "convey.toml".to_owned());
    with_client(channel, async |client, _news| {
        let ask = |client: Client, name: &'static str| {
            tokio::spawn(async move { client.release_packet_sockets(name.into()).await })
        };
        // the first keeps the broker busy, the second is given up meanwhile
        let (first, second) = (ask(client.clone(), "a"), ask(client.clone(), "b"));
        tokio::task::yield_now().await;
        assert_eq!(take(&broker).number, 1);
        second.abort();
        let _ = second.await;
        let third = ask(client, "c");
        tokio::task::yield_now().await;
        say(&broker, 1, Outcome::Done, &[]);
        first.await.unwrap().unwrap();
        assert_eq!(take(&broker).verb, Verb::ReleasePacketSockets("c".to_owned()));
        say(&broker, 2, Outcome::Done, &[]);
        third.await.unwrap().unwrap();
    });
}

#[test]
fn a_file_is_taken_with_its_identity() {
    let (channel, broker) = pair();
    let answering = thread::spawn(move || {
        let request = take(&broker);
        assert_eq!(request.verb, Verb::Read(What::Config));
        let copy = memfd::sealed(b"[global]").unwrap();
        let identity = crate::sys::config_file::FileIdentity::of_test(3);
        let outcome = Outcome::Contents {
            identity,
            default_nat_ports: Some(PortRanges::STOCK),
        };
        say(&broker, request.number, outcome, &[&copy]);
        identity
    });
    let read = channel.read(What::Config).unwrap();
    assert_eq!(read.source.bytes, b"[global]");
    assert_eq!(read.identity, answering.join().unwrap());
    assert_eq!(read.default_nat_ports, Some(PortRanges::STOCK));
}
