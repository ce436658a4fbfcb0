//! Peers that end or talk as few do, and are right.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc,
};

use socket2::SockRef;

use super::rig::{Rig, limit_servers, pattern, read_all, server, wait_until};
use crate::{
    PATIENCE,
    base::TerminationReason as Reason,
    sys::tcp::{self, reset_on_close},
};

/// Everything that comes, and whether it ended with a reset.
fn read_to_the_end(mut stream: TcpStream) -> (Vec<u8>, bool) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, false),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, true),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn bytes_and_a_reset_that_arrive_at_once_reach_the_other_side_as_such() {
    let (told, heard) = mpsc::channel();
    let rig = Rig::new(
        &[server(move |stream| told.send(read_to_the_end(stream)).unwrap())],
        |_, _| {},
    );
    for len in [10, 60_000, 1 << 20] {
        let mut client = rig.client();
        // the relay runs before they come, so that it meets both in one look
        wait_until("it has a server", || rig.server_totals(0).current == 1);
        client.write_all(&pattern(len)).unwrap();
        reset_on_close(&client);
        drop(client);
        let (bytes, is_reset) = heard.recv_timeout(PATIENCE).unwrap();
        assert!(is_reset, "{} of {len} bytes and an orderly end", bytes.len());
        // a reset takes from the sender's own queue what has not been sent
        assert!(pattern(len).starts_with(&bytes));
        assert!(len > 10 || bytes.len() == len, "{} of {len} bytes", bytes.len());
        assert_eq!(rig.record().reason, Reason::ClientAbort);
    }
}

#[test]
fn a_servers_bytes_and_reset_reach_the_client_as_such() {
    let rig = Rig::new(
        &[server(|mut stream| {
            let mut question = [0; 1];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(b"half a word").unwrap();
            reset_on_close(&stream);
        })],
        |_, _| {},
    );
    for _ in 0..20 {
        let mut client = rig.client();
        client.write_all(b"?").unwrap();
        assert_eq!(read_to_the_end(client), (b"half a word".to_vec(), true));
        assert_eq!(rig.record().reason, Reason::ServerAbort);
    }
}

#[test]
fn an_answer_that_a_server_gives_without_reading_the_request_arrives_whole() {
    // more than the client's kernel takes before it reads, so that it is still on its way when the server's reset comes
    let answer = pattern(200_000);
    let sent = answer.clone();
    let rig = Rig::new(
        &[server(move |mut stream| {
            stream.write_all(&sent).unwrap();
            // its kernel resets at the close, because the request lies there unread, and forgets what it has not sent
            wait_until("all is sent", || tcp::unacknowledged(&stream).unwrap() == 0);
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
    client.write_all(&pattern(100_000)).unwrap();
    wait_until("the whole answer has left the server", || {
        rig.server_totals(0).bytes_out == answer.len() as u64
    });
    // before it reads, the relay has met the reset
    client.write_all(b"more").unwrap();
    let (bytes, _) = read_to_the_end(client);
    assert_eq!(bytes.len(), answer.len());
    assert!(bytes == answer);
}

#[test]
fn a_client_that_takes_nothing_of_a_dead_servers_answer_is_given_up_when_it_goes() {
    let rig = Rig::new(
        &[server(|mut stream| {
            stream.write_all(&pattern(200_000)).unwrap();
            wait_until("all is sent", || tcp::unacknowledged(&stream).unwrap() == 0);
            reset_on_close(&stream);
        })],
        |_, _| {},
    );
    let client = rig.client();
    SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
    wait_until("the answer is on its way", || rig.server_totals(0).bytes_out > 0);
    reset_on_close(&client);
    drop(client);
    let reason = rig.record().reason;
    assert!(
        matches!(reason, Reason::ClientAbort | Reason::ServerAbort),
        "{reason}"
    );
}

#[test]
fn urgent_data_and_what_follows_it_arrive_at_once_and_the_urgent_byte_as_urgent() {
    let (told, heard) = mpsc::channel();
    let rig = Rig::new(
        &[server(move |mut stream| {
            // in its place in the stream, so that the test sees where that is
            SockRef::from(&stream).set_out_of_band_inline(true).unwrap();
            stream.write_all(b"ready").unwrap();
            let mut all = [0; 10];
            stream.read_exact(&mut all).unwrap();
            told.send(all).unwrap();
            // and the connection goes on
            let mut more = [0; 4];
            stream.read_exact(&mut more).unwrap();
            stream.write_all(&more).unwrap();
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    client.read_exact(&mut [0; 5]).unwrap();
    client.write_all(b"abc").unwrap();
    SockRef::from(&client).send_out_of_band(b"X").unwrap();
    client.write_all(b"defghi").unwrap();
    assert_eq!(&heard.recv_timeout(PATIENCE).unwrap(), b"abcXdefghi");
    client.write_all(b"more").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"more");
    assert_eq!(rig.record().reason, Reason::Normal);
}

#[test]
fn urgent_data_in_the_middle_of_bulk_stops_nothing() {
    let (told, heard) = mpsc::channel();
    let rig = Rig::new(
        &[server(move |mut stream| {
            SockRef::from(&stream).set_out_of_band_inline(true).unwrap();
            told.send(read_all(&mut stream).len()).unwrap();
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    let mut sent = 0;
    for turn in 0..8 {
        client.write_all(&pattern(3 << 20)).unwrap();
        sent += 3 << 20;
        if turn % 2 == 1 {
            SockRef::from(&client).send_out_of_band(b"!").unwrap();
            sent += 1;
        }
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), sent);
}

#[test]
fn a_client_that_resets_leaves_the_queue_at_once_and_the_server_hears_nothing_of_it() {
    let (told, heard) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let rig = Rig::new(
        &[server(move |mut stream| {
            let mut word = [0; 5];
            stream.read_exact(&mut word).unwrap();
            told.send(word).unwrap();
            let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
        })],
        |_, backend| limit_servers(backend, 1),
    );
    let mut first = rig.client();
    first.write_all(b"first").unwrap();
    assert_eq!(&heard.recv_timeout(PATIENCE).unwrap(), b"first");
    let mut goes = rig.queued_client();
    goes.write_all(b"hello").unwrap();
    reset_on_close(&goes);
    drop(goes);
    wait_until("it has left the queue", || rig.backend().live.queue.used() == 0);
    assert_eq!(rig.record().reason, Reason::ClientAbortQueue);
    // one that has only closed its half still wants an answer
    let mut stays = rig.queued_client();
    stays.write_all(b"stays").unwrap();
    stays.shutdown(Shutdown::Write).unwrap();
    open.send(()).unwrap();
    drop(first);
    assert_eq!(&heard.recv_timeout(PATIENCE).unwrap(), b"stays");
}
