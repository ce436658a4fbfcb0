//! What a check talks over.

use std::{io, net::SocketAddr};

use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    config::SendProxy,
    preamble::proxy::{self, ProxySource, Tlvs},
};

/// A stream that bytes are said and heard over.
pub trait Channel {
    /// Says all of it.
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Hears something; 0 is the end.
    async fn hear(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Says that this was all.
    async fn finish(&mut self) -> io::Result<()>;
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connected<S> {
    /// The stream.
    pub stream: S,
    /// Its addresses, ours first; a unix socket has none.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

impl<S> Connected<S> {
    /// The header that says that it is Convey's own.
    #[must_use]
    pub fn proxy_header(&self, how: SendProxy) -> Vec<u8> {
        match how {
            // some servers refuse UNKNOWN
            SendProxy::V1 => proxy::write_v1(match self.ends {
                Some((ours, theirs)) => ProxySource::client(ours, theirs),
                None => ProxySource::Unknown,
            }),
            SendProxy::V2(_) => proxy::write_v2(ProxySource::Local, &Tlvs::default(), false),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel for Connected<S> {
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn hear(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// The system's text without capital and number, for it stands in the middle of a line.
pub fn text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_ascii_lowercase(),
        None => error.to_string(),
    }
}
