//! The actor of a syslog server: by UDP and at a unix socket a message a datagram, by TCP each after its length (RFC 6587,
//! section 3.4.1).

use std::{
    future::pending,
    io::{self, Write as _},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpStream, UdpSocket, UnixDatagram},
    select,
    sync::mpsc::UnboundedReceiver,
    time::{sleep, timeout},
};

use super::{
    super::sink::{Batch, Message, SinkState},
    Backoff, Exporter,
};
use crate::{
    base::{Host, SocketPath},
    client::connect::first_of,
    config::{HostPort, SyslogServer},
    daemon::names::addresses,
};

/// How long a server may take nothing before the connection to it is given up.
const STUCK: Duration = Duration::from_secs(10);

/// How long the address of a name is believed where no connection shows that it is still the right one.
const BELIEVED: Duration = Duration::from_secs(60);

/// Sends until nobody hands anything over any more.
pub async fn run(
    server: &SyslogServer,
    exporter: &Exporter,
    state: &SinkState,
    mut inbox: UnboundedReceiver<Message>,
) {
    let mut actor = Actor {
        server,
        exporter,
        state,
        connection: None,
    };
    loop {
        select! {
            // what is sent to a server that has gone is lost
            biased;
            () = actor.closed() => actor.connection = None,
            message = inbox.recv() => match message {
                Some(Message::Batch(batch)) => actor.deliver(&batch, &inbox).await,
                Some(Message::Opened(_)) => {}
                None => return,
            },
        }
    }
}

struct Actor<'a> {
    server: &'a SyslogServer,
    exporter: &'a Exporter,
    state: &'a SinkState,
    connection: Option<Connection>,
}

enum Connection {
    /// Since when it has been sent to this address.
    Udp(UdpSocket, Instant),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

impl Actor<'_> {
    /// Sends a batch, or loses it at the end of the process if nobody takes it.
    async fn deliver(&mut self, batch: &Batch, inbox: &UnboundedReceiver<Message>) {
        let (mut sent, mut backoff) = (0, Backoff::new());
        while sent < batch.len() {
            match self.attempt(batch, &mut sent).await {
                Ok(()) => {}
                Err(why) => {
                    self.connection = None;
                    self.state.fails(&why);
                    if inbox.is_closed() {
                        break;
                    }
                    sleep(backoff.next()).await;
                }
            }
        }
        self.state.add_dropped(batch.len() - sent);
        self.state.done(batch);
    }

    /// Sends the messages of a batch that were not sent yet, as far as it goes.
    async fn attempt(&mut self, batch: &Batch, sent: &mut usize) -> Result<(), String> {
        if self.is_outdated() {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.server, self.exporter).await?),
        };
        let result = match connection {
            Connection::Udp(socket, _) => {
                return udp(socket, batch, sent, self.state).await;
            }
            Connection::Unix(socket) => unix(socket, batch, sent, self.state).await,
            Connection::Tcp(stream) => tcp(stream, batch, sent).await,
        };
        result.map_err(|error| format!("send: {error}"))?;
        self.state.works();
        Ok(())
    }

    fn is_outdated(&self) -> bool {
        let is_named = match self.server {
            SyslogServer::Udp(to) => matches!(to.host, Host::Name(_)),
            SyslogServer::Tcp(_) | SyslogServer::Unix(_) => false,
        };
        match &self.connection {
            Some(Connection::Udp(_, since)) => is_named && since.elapsed() > BELIEVED,
            _ => false,
        }
    }

    /// Resolves when the server has closed its connection: what is sent after that is lost.
    async fn closed(&self) {
        let Some(Connection::Tcp(stream)) = &self.connection else {
            return pending().await;
        };
        loop {
            if stream.readable().await.is_err() {
                return;
            }
            match stream.try_read(&mut [0; 512]) {
                Ok(0) => return,
                // nothing that a syslog server says is of interest
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

async fn connect(server: &SyslogServer, exporter: &Exporter) -> Result<Connection, String> {
    match server {
        SyslogServer::Udp(to) => connect_udp(to, exporter).await,
        SyslogServer::Tcp(to) => {
            let found = addresses(&exporter.broker, &to.host).await?;
            let (stream, _) = (first_of(&found, to.port).await).map_err(|error| error.to_string())?;
            Ok(Connection::Tcp(stream))
        }
        SyslogServer::Unix(path) => {
            let socket = exporter.broker.log_socket(*path).await;
            let socket = socket.map_err(|error| error.to_string())?;
            of_broker(socket, *path).map(Connection::Unix)
        }
    }
}

async fn connect_udp(to: &HostPort, exporter: &Exporter) -> Result<Connection, String> {
    let found = addresses(&exporter.broker, &to.host).await?;
    let mut why = "there is no address to send to".to_owned();
    for ip in found {
        let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let connected = match UdpSocket::bind(any).await {
            Ok(socket) => socket.connect((ip, to.port)).await.map(|()| socket),
            Err(error) => Err(error),
        };
        match connected {
            Ok(socket) => return Ok(Connection::Udp(socket, Instant::now())),
            Err(error) => why = format!("send to {ip}: {error}"),
        }
    }
    Err(why)
}

fn of_broker(socket: OwnedFd, path: SocketPath) -> Result<UnixDatagram, String> {
    UnixDatagram::from_std(socket.into()).map_err(|error| format!("connect to {path}: {error}"))
}

/// Sends by UDP, which may lose anything: what the network says of a datagram before is noted, and no more.
async fn udp(socket: &UdpSocket, batch: &Batch, sent: &mut usize, state: &SinkState) -> Result<(), String> {
    let mut trouble = None;
    for message in batch.lines_from(*sent) {
        // an error is that of an earlier datagram, and has kept this one from being sent
        let result = match socket.send(message).await {
            Err(error) => {
                state.add_dropped(1);
                trouble = Some(error);
                socket.send(message).await
            }
            sent => sent,
        };
        if let Err(error) = result {
            trouble = Some(error);
        }
        *sent += 1;
    }
    match trouble {
        None => state.works(),
        Some(error) => state.fails(&format!("send: {error}")),
    }
    Ok(())
}

/// Sends to a socket of this host, whose reader is waited for.
async fn unix(socket: &UnixDatagram, batch: &Batch, sent: &mut usize, state: &SinkState) -> io::Result<()> {
    for message in batch.lines_from(*sent) {
        match timeout(STUCK, socket.send(message)).await {
            Ok(Ok(_)) => {}
            // longer than the socket takes
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EMSGSIZE) => state.add_dropped(1),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(stuck()),
        }
        *sent += 1;
    }
    Ok(())
}

/// Sends by TCP. What was not written whole is sent again by the next connection.
async fn tcp(stream: &TcpStream, batch: &Batch, sent: &mut usize) -> io::Result<()> {
    let (mut framed, mut ends) = (
        Vec::with_capacity(batch.bytes.len() + batch.len() * 5),
        Vec::new(),
    );
    for message in batch.lines_from(*sent) {
        // a Vec takes everything
        let _ = write!(framed, "{} ", message.len());
        framed.extend_from_slice(message);
        ends.push(framed.len());
    }
    let (first, mut written) = (*sent, 0);
    while let Some(rest) = framed.get(written..).filter(|rest| !rest.is_empty()) {
        timeout(STUCK, stream.writable()).await.map_err(|_| stuck())??;
        match stream.try_write(rest) {
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        *sent = first + ends.partition_point(|end| *end <= written);
    }
    Ok(())
}

fn stuck() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server takes nothing")
}
