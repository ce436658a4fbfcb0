use std::{net::UdpSocket, time::Duration};

use nix::errno::Errno;

use super::*;

fn listening(addr: &str) -> (OwnedFd, SocketAddr) {
    let socket = listen(addr.parse().unwrap(), None, SocketOptions::default()).unwrap();
    let addr = address_of(socket.as_fd()).unwrap();
    (socket, addr)
}

fn client(to: &str) -> UdpSocket {
    let socket = UdpSocket::bind(if to.contains('.') {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    })
    .unwrap();
    socket.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    socket
}

/// Receives until so many datagrams are there, merged or not.
fn receive(socket: &OwnedFd, datagrams: usize) -> Receiver {
    let mut receiver = Receiver::new(64);
    let count = |receiver: &Receiver| -> usize {
        (0..receiver.len())
            .map(|index| receiver.message(index).unwrap().datagrams())
            .sum()
    };
    while count(&receiver) < datagrams {
        if receiver.receive(socket.as_fd(), 64).unwrap() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    receiver
}

#[track_caller]
fn send(socket: &OwnedFd, is_ipv6: bool, outgoing: Outgoing<'_>) -> Vec<(usize, usize, Errno)> {
    let mut refused = Vec::new();
    let tell = |index, datagrams, error| refused.push((index, datagrams, error));
    Sender::default().send(socket.as_fd(), is_ipv6, &[outgoing], tell);
    refused
}

fn plain(bytes: &[u8]) -> Outgoing<'_> {
    Outgoing {
        to: None,
        from: None,
        is_ipv4: true,
        ecn: 0,
        dscp: None,
        segment: None,
        before: &[],
        bytes,
    }
}

#[test]
fn an_address_is_shared_by_workers_and_taken_for_everybody_else() {
    let (_first, addr) = listening("127.0.0.1:0");
    assert!(
        listen(addr, None, SocketOptions::default()).is_ok(),
        "a second worker's"
    );
    let error = probe_exclusive(addr, None).unwrap_err();
    assert_eq!(
        (error.step, error.source.kind()),
        ("bind", io::ErrorKind::AddrInUse)
    );
}

#[test]
fn what_no_worker_listens_with_is_none_of_ours() {
    let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(address_of(alone.as_fd()), None);
    let connected = connect(alone.local_addr().unwrap(), None, Source::default()).unwrap();
    assert_eq!(address_of(connected.as_fd()), None);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(address_of(tcp.as_fd()), None);
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked_with_its_ecn_bits() {
    for (listen, to, is_ipv6) in [
        ("0.0.0.0:0", "127.0.0.9", false),
        ("[::]:0", "127.0.0.9", true),
        ("[::]:0", "::1", true),
        ("127.0.0.9:0", "127.0.0.9", false),
    ] {
        let (socket, addr) = listening(listen);
        let to = SocketAddr::new(to.parse().unwrap(), addr.port());
        let client = connect(to, None, Source::default()).unwrap();
        let is_ipv4 = to.is_ipv4();
        let marked = Outgoing {
            ecn: 2,
            is_ipv4,
            ..plain(b"question")
        };
        assert_eq!(send(&client, !is_ipv4, marked), []);
        let got = receive(&socket, 1);
        let message = got.message(0).unwrap();
        assert_eq!(
            (got.bytes(0), message.ecn),
            (b"question".as_slice(), 2),
            "{listen}"
        );
        assert_eq!(message.local.unwrap_or(addr.ip()), to.ip(), "{listen}");
        let answer = Outgoing {
            to: message.from,
            from: message.local.map(|local| SocketAddr::new(local, 0)),
            ecn: 1,
            is_ipv4,
            ..plain(b"answer")
        };
        assert_eq!(send(&socket, is_ipv6, answer), []);
        // it is connected: what comes from elsewhere it does not get
        let got = receive(&client, 1);
        assert_eq!(
            (got.bytes(0), got.message(0).unwrap().ecn),
            (b"answer".as_slice(), 1),
            "{listen}"
        );
    }
}

#[test]
fn what_is_sent_merged_comes_as_datagrams_of_that_size() {
    let (socket, addr) = listening("127.0.0.1:0");
    let client = connect(addr, None, Source::default()).unwrap();
    let bytes: Vec<u8> = (0..750_u16).map(|i| i as u8).collect();
    let merged = Outgoing {
        segment: Some(100),
        ..plain(&bytes)
    };
    assert_eq!(merged.datagrams(), 8);
    assert_eq!(send(&client, false, merged), []);
    let got = receive(&socket, 8);
    let all: Vec<u8> = (0..got.len())
        .flat_map(|index| got.bytes(index).to_vec())
        .collect();
    assert_eq!(all, bytes);
    assert!((0..got.len()).all(|index| got.message(index).unwrap().longest() <= 100));
}

#[test]
fn segments_that_the_way_out_does_not_take_are_sent_as_datagrams_of_their_own() {
    let (socket, addr) = listening("127.0.0.1:0");
    let client = connect(addr, None, Source::default()).unwrap();
    // more of them than the kernel takes in one call (UDP_MAX_SEGMENTS)
    let bytes = [7; 150];
    let merged = Outgoing {
        segment: Some(1),
        ..plain(&bytes)
    };
    assert_eq!(send(&client, false, merged), []);
    let mut got = Receiver::new(64);
    let mut datagrams = 0;
    while datagrams < 150 {
        got.clear();
        got.receive(socket.as_fd(), 64).unwrap();
        datagrams += (0..got.len())
            .map(|index| got.message(index).unwrap().datagrams())
            .sum::<usize>();
    }
    assert_eq!(datagrams, 150);
}

#[test]
fn the_largest_and_the_empty_datagram_pass() {
    let (socket, addr) = listening("127.0.0.1:0");
    let client = client("127.0.0.1");
    let largest = vec![1; 65_507];
    client.send_to(&largest, addr).unwrap();
    client.send_to(&[], addr).unwrap();
    let got = receive(&socket, 2);
    assert_eq!((got.bytes(0), got.bytes(1)), (largest.as_slice(), [].as_slice()));
    let to = got.message(0).unwrap().from;
    assert_eq!(
        send(
            &socket,
            false,
            Outgoing {
                to,
                ..plain(got.bytes(0))
            }
        ),
        []
    );
    assert_eq!(send(&socket, false, Outgoing { to, ..plain(&[]) }), []);
    let mut buffer = vec![0; 65_536];
    assert_eq!(client.recv(&mut buffer).unwrap(), 65_507);
    assert_eq!(client.recv(&mut buffer).unwrap(), 0);
}

#[test]
fn a_closed_port_of_a_server_is_an_error_of_the_socket() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = gone.local_addr().unwrap();
    drop(gone);
    let socket = connect(addr, None, Source::default()).unwrap();
    assert_eq!(send(&socket, false, plain(b"hello")), []);
    let mut receiver = Receiver::new(1);
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < crate::PATIENCE, "no error came");
        if let Err(error) = receiver.receive(socket.as_fd(), 1) {
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            break;
        }
    }
}

#[test]
fn what_stands_before_a_datagram_is_sent_with_it() {
    let (socket, addr) = listening("127.0.0.1:0");
    let client = connect(addr, None, Source::default()).unwrap();
    assert_eq!(
        send(
            &client,
            false,
            Outgoing {
                before: b"header ",
                ..plain(b"payload")
            }
        ),
        []
    );
    assert_eq!(receive(&socket, 1).bytes(0), b"header payload");
}
