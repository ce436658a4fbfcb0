//! Who the client of a connection is, and what it has said before its payload.

use std::{net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use super::{
    accepted::{Accepted, Speaker},
    handshake,
    preamble::{self, HelloRead, Preamble},
};
use crate::{
    base::{AccessRecord, ClientAddr, ListenAddr, Remote, TerminationReason, TlsRecord, UniqueId},
    config::SendProxy,
    preamble::proxy::{self, ProxySource, Ssl, Tlvs},
    proxy::tcp::{direction::Direction, tls::TlsWays},
    snapshot::{Facts, Hello},
    sys::tcp,
    tls::HandshakeFailure,
};

/// A connection whose client is known.
pub struct Identified {
    pub accepted: Accepted,
    /// Whom the connection comes from: its peer as long as nothing else can speak for a client. What a PROXY header says
    /// goes here, and only here.
    pub client: Remote<ClientAddr>,
    /// What was read before the payload; `None` if nothing had to be.
    preamble: Option<Box<Preamble>>,
}

impl Identified {
    /// Reads what stands before the payload if somebody has to know it: a PROXY header, a ClientHello. `None`: the connection
    /// was ended, counted and logged.
    pub async fn of(accepted: Accepted) -> Option<Self> {
        let frontend = &accepted.origin.frontend;
        if accepted.speaker == Speaker::Itself && !frontend.needs_hello && frontend.tls.is_none() {
            return Some(Self::new(accepted, None));
        }
        // boxed, because most connections say nothing before their payload and are to be small
        Box::pin(Self::read(accepted)).await
    }

    fn new(accepted: Accepted, preamble: Option<Box<Preamble>>) -> Self {
        let said = preamble.as_ref().and_then(|preamble| preamble.header.as_ref());
        let client = match said.map(|header| &header.source) {
            Some(ProxySource::Client { client, .. }) => (*client).into(),
            _ => accepted.origin.peer.into(),
        };
        accepted.registration.identified(client);
        Self {
            accepted,
            client,
            preamble,
        }
    }

    async fn read(accepted: Accepted) -> Option<Self> {
        let mut preamble = Box::<Preamble>::default();
        let header = match accepted.speaker {
            Speaker::Itself => Ok(()),
            Speaker::Proxy => preamble::read_header(&accepted, &mut preamble).await,
        };
        let mut identified = Self::new(accepted, Some(preamble));
        let read = match header.and_then(|()| identified.admit()) {
            Ok(()) => identified.read_hello().await,
            Err(reason) => Err(reason),
        };
        match read {
            Ok(()) => Some(identified),
            Err(reason) => {
                identified.end(reason);
                None
            }
        }
    }

    /// What access rules and limits say of a client that was not known before its header.
    fn admit(&mut self) -> Result<(), TerminationReason> {
        let Self { accepted, client, .. } = self;
        let origin = &accepted.origin;
        let Some(access) = origin
            .frontend
            .access
            .as_ref()
            .filter(|_| accepted.speaker == Speaker::Proxy)
        else {
            return Ok(());
        };
        match access.admit_remote(client.ip(), accepted.shared().now()) {
            Ok(permit) => {
                accepted.permit = Some(permit);
                Ok(())
            }
            Err(reason) => {
                let counters = origin.frontend.live.counters.shard(origin.worker);
                counters.refused[reason as usize].add(1);
                Err(TerminationReason::AccessRefused)
            }
        }
    }

    async fn read_hello(&mut self) -> Result<(), TerminationReason> {
        let frontend = &self.accepted.origin.frontend;
        match (&mut self.preamble, &frontend.tls) {
            (Some(preamble), Some(tls)) => {
                handshake::shake(&self.accepted, self.client, preamble, tls).await?;
            }
            (Some(preamble), None) if frontend.needs_hello => {
                preamble::read_hello(&self.accepted, preamble).await?;
            }
            _ => return Ok(()),
        }
        if let Some(sni) = self.sni() {
            self.accepted.registration.named(Arc::clone(sni));
        }
        Ok(())
    }

    /// What routes are chosen by.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        let hello = self.preamble.as_ref().map(|preamble| &preamble.hello);
        Facts {
            client: self.client,
            destination: match self.accepted.origin.frontend.routes {
                Some(_) => self.destination().map(ListenAddr::new),
                None => self.listen_addr().map(ListenAddr::new),
            },
            hello: match hello {
                None | Some(HelloRead::Unread) => Hello::Unread,
                Some(HelloRead::NotTls) => Hello::NotTls,
                Some(HelloRead::Read { sni, alpn }) => Hello::Read {
                    sni: sni.as_deref(),
                    alpn,
                },
            },
        }
    }

    /// The address that the client connected to: ours, or the one that the header names; `None` of a unix socket.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        let header = self
            .preamble
            .as_ref()
            .and_then(|preamble| preamble.header.as_ref());
        if let Some(ProxySource::Client { destination, .. }) = header.map(|header| &header.source) {
            return Some(*destination);
        }
        let listen = self.listen_addr()?;
        if !listen.ip().is_unspecified() {
            return Some(listen);
        }
        let local = tcp::local_address(self.accepted.socket.as_raw_fd());
        Some(local.map_or(listen, SocketAddr::from))
    }

    /// The listener's address, a wildcard perhaps.
    fn listen_addr(&self) -> Option<SocketAddr> {
        let endpoint = self.accepted.origin.listener.endpoint()?;
        Some(endpoint.addr.0)
    }

    /// The name that the client has asked for, if its ClientHello was read.
    #[must_use]
    pub fn sni(&self) -> Option<&Arc<str>> {
        match &self.preamble.as_ref()?.hello {
            HelloRead::Read { sni, .. } => sni.as_ref(),
            HelloRead::Unread | HelloRead::NotTls => None,
        }
    }

    /// The protocol that was agreed on with the client, if its TLS ends here.
    #[must_use]
    pub fn agreed_alpn(&self) -> Option<&str> {
        self.preamble.as_ref()?.session.as_ref()?.alpn.as_deref()
    }

    /// What a server is told of the client. `id` is given out if it is told of that too.
    #[must_use]
    pub fn proxy_header(&self, how: SendProxy, id: impl FnOnce() -> UniqueId) -> Vec<u8> {
        let source = match (self.client.socket_addr(), self.destination()) {
            (Some(client), Some(destination)) => ProxySource::client(client, destination),
            _ => ProxySource::Unknown,
        };
        let SendProxy::V2(sent) = how else {
            return proxy::write_v1(source);
        };
        let preamble = self.preamble.as_ref();
        let said = preamble.and_then(|preamble| Some(&preamble.header.as_ref()?.tlvs));
        let own = preamble.and_then(|preamble| preamble.session.as_deref());
        let name = self.sni().and_then(|sni| proxy::Text::new(sni.as_bytes()));
        let own_alpn = own.and_then(|own| proxy::Bytes::new(own.alpn.as_ref()?.as_bytes()));
        let id = sent.unique_id.then(|| id().to_string());
        let tlvs = Tlvs {
            authority: name
                .or_else(|| said?.authority.clone())
                .filter(|_| sent.authority),
            alpn: own_alpn.or_else(|| said?.alpn.clone()).filter(|_| sent.alpn),
            unique_id: id.and_then(|id| proxy::Bytes::new(id.as_bytes())),
            ssl: (sent.ssl).then(|| own.map(ssl).or_else(|| said?.ssl.clone()).unwrap_or_default()),
        };
        proxy::write_v2(source, &tlvs, sent.crc32c)
    }

    /// Its connection through TLS, if that ends here. To be called once.
    #[must_use]
    pub fn take_tls(&mut self) -> Option<Box<TlsWays>> {
        self.preamble.as_mut()?.tls.take()
    }

    /// What the log says of what came before the payload.
    pub fn fill(&mut self, record: &mut AccessRecord) {
        record.client = self.client;
        record.sni = self.sni().map(Arc::clone);
        if let Some(preamble) = &mut self.preamble {
            record.tls = preamble.session.take();
            record.tls_failure = preamble.tls_failure.map(HandshakeFailure::label);
        }
    }

    /// What the client has sent already, to go to the server first of all.
    #[must_use]
    pub fn take_early(&mut self) -> Direction {
        match &mut self.preamble {
            Some(preamble) => Direction::with(std::mem::take(&mut preamble.bytes)),
            None => Direction::default(),
        }
    }

    /// Counts and reports the end of a connection that was not routed.
    pub fn end(mut self, reason: TerminationReason) {
        let accepted = &self.accepted;
        let reason = accepted.registration.ended_by().unwrap_or(reason);
        let origin = &accepted.origin;
        let counters = origin.frontend.live.counters.shard(origin.worker);
        counters.ended[reason as usize].add(1);
        let times = &origin.frontend.live.session_time;
        times.own(origin.worker).add(origin.age());
        if !matches!(
            reason,
            TerminationReason::TlsHandshake | TerminationReason::AcmeChallenge
        ) {
            // the alert that says why must arrive, and so must the proof
            tcp::reset_on_close(&accepted.socket);
        }
        if origin.frontend.logs(reason) {
            let mut record = origin.record(reason);
            self.fill(&mut record);
            self.accepted.shared().access.record(record);
        }
    }
}

/// TLS that ends here, as the header knows it.
fn ssl(session: &TlsRecord) -> Ssl {
    let has_certificate = session.client_subject.is_some();
    Ssl {
        is_tls: true,
        certificate_in_connection: has_certificate && !session.resumed,
        certificate_in_session: has_certificate,
        verify: if has_certificate { 0 } else { proxy::UNVERIFIED },
        version: proxy::Text::new(session.version.as_bytes()),
        common_name: (session.client_name.as_ref()).and_then(|name| proxy::Text::new(name.as_bytes())),
        cipher: proxy::Text::new(session.cipher.as_bytes()),
        ..Ssl::default()
    }
}
