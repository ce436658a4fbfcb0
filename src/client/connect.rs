//! Connections to hosts, with TLS where that is wanted.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::tls::server_failure;

/// How long one of several addresses is waited for.
const EACH: Duration = Duration::from_secs(2);

/// Most addresses of a name that are tried.
const MOST: usize = 8;

/// A connection, of whichever kind.
pub type Stream = Box<dyn ReadWrite>;

/// What is read from and written to.
pub trait ReadWrite: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ReadWrite for T {}

/// TLS to a host.
#[derive(Clone)]
pub struct Tls {
    /// How.
    pub config: Arc<ClientConfig>,
    /// What its certificate is verified for.
    pub name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.name).finish()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no address.
    #[error("there is no address to connect to")]
    Nowhere,
    /// No address lets us; of several the last.
    #[error("connect to {addr}: {error}")]
    Refused {
        /// Which.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// TLS fails.
    #[error("TLS with {addr}: {why}")]
    Tls {
        /// Which.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
}

/// Connects to a host, at each of its addresses in turn until one lets us.
///
/// # Errors
/// None does.
pub async fn connect(addresses: &[IpAddr], port: u16, tls: Option<&Tls>) -> Result<Stream, ConnectError> {
    let (stream, addr) = first_of(addresses, port).await?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    shake_hands(stream, addr, tls).await
}

/// Connects by TCP to a host, at each of its addresses in turn until one lets us.
///
/// # Errors
/// None does.
pub async fn first_of(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut refused = None;
    for ip in addresses.iter().take(MOST) {
        let addr = SocketAddr::new(*ip, port);
        let connected = timeout(EACH, TcpStream::connect(addr)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok((stream, addr)),
            Err(error) => refused = Some(ConnectError::Refused { addr, error }),
        }
    }
    Err(refused.unwrap_or(ConnectError::Nowhere))
}

async fn shake_hands(stream: TcpStream, addr: SocketAddr, tls: &Tls) -> Result<Stream, ConnectError> {
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    match connector.connect(tls.name.clone(), stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => {
            let rustls = error.get_ref().and_then(|error| error.downcast_ref());
            let why = match rustls {
                Some(error) => server_failure(error).sentence().to_owned(),
                None => error.to_string(),
            };
            Err(ConnectError::Tls { addr, why })
        }
    }
}
