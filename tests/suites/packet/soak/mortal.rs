//! A server that can die with all its connections, and come back.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::lab::{Family, Host, servers::TcpServer};

/// The witness of a host, by both families.
pub struct Mortal {
    host: Host,
    port: u16,
    alive: Vec<TcpServer>,
    connections: Arc<Connections>,
}

#[derive(Default)]
struct Connections {
    last: AtomicU64,
    open: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Mortal {
    /// Alive.
    pub fn new(host: &Host, port: u16) -> Self {
        let mut mortal = Self {
            host: host.clone(),
            port,
            alive: Vec::new(),
            connections: Arc::default(),
        };
        mortal.revive();
        mortal
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Listens again.
    pub fn revive(&mut self) {
        self.alive = Family::ALL
            .map(|family| {
                let (name, connections) = (self.host.name().to_owned(), Arc::clone(&self.connections));
                let addr = self.host.addr_of(family, self.port);
                TcpServer::start_at(&self.host, addr, move |stream| connections.serve(&name, &stream))
            })
            .into();
    }

    /// Listens no more, and ends every connection.
    pub fn kill(&mut self) {
        self.alive.clear();
        for stream in self.connections.open.lock().expect("the connections").values() {
            // it may have ended just now
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Connections {
    fn serve(&self, name: &str, stream: &TcpStream) -> io::Result<()> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let open = || self.open.lock().expect("the connections");
        open().insert(number, stream.try_clone()?);
        let served = witness(name, stream);
        open().remove(&number);
        served
    }
}

/// Says its name and the client's address, then gives back every byte.
fn witness(name: &str, mut stream: &TcpStream) -> io::Result<()> {
    writeln!(stream, "{name} {}", stream.peer_addr()?)?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}
