//! The readers and writers, from outside.

mod clients;
pub(crate) mod forge;
mod hello;
mod hello_faults;
mod proxy_v1;
mod proxy_v2;
mod random;

use super::{
    ClientHello, HelloReader, HelloRefusal, Progress,
    proxy::{self, ProxyHeader, ProxyRefusal, ProxySource},
};

/// What the reader says of all bytes at once.
fn read_hello(bytes: &[u8]) -> Progress<ClientHello, HelloRefusal> {
    HelloReader::default().read(bytes)
}

/// What the reader says as the bytes come in pieces that end there, until it has decided.
fn read_hello_in_pieces(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
) -> Progress<ClientHello, HelloRefusal> {
    let mut reader = HelloReader::default();
    let mut ends = ends.into_iter().chain([bytes.len()]);
    let decided = ends.find_map(|end| match reader.read(&bytes[..end]) {
        Progress::More => None,
        decided => Some(decided),
    });
    decided.unwrap_or(Progress::More)
}

/// The ClientHello that bytes are.
fn hello_of(bytes: &[u8]) -> ClientHello {
    match read_hello(bytes) {
        Progress::Done(hello) => hello,
        other => panic!("no ClientHello: {other:?}"),
    }
}

/// Of something that is refused: why, and after how many bytes it is known.
fn refusal<T: std::fmt::Debug, E>(bytes: &[u8], mut read: impl FnMut(&[u8]) -> Progress<T, E>) -> (E, usize) {
    for end in 0..=bytes.len() {
        match read(&bytes[..end]) {
            Progress::More => {}
            Progress::Refused(refusal) => return (refusal, end),
            Progress::Done(read) => panic!("it is accepted: {read:?}"),
        }
    }
    panic!("more is wanted than {}", bytes.escape_ascii());
}

/// The PROXY header that bytes begin with.
fn header_of(bytes: &[u8]) -> ProxyHeader {
    match proxy::read(bytes) {
        Progress::Done(header) => header,
        other => panic!("{}: no header: {other:?}", bytes.escape_ascii()),
    }
}

/// Why bytes are no PROXY header.
fn proxy_refusal(bytes: &[u8]) -> ProxyRefusal {
    refusal(bytes, proxy::read).0
}

/// A client and where it has connected to.
fn client(client: &str, destination: &str) -> ProxySource {
    ProxySource::Client {
        client: client.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}
