//! TLS at frontends and to servers: certificates, and what rustls needs to open connections with them. No network and no files: whoever has
//! bytes puts them in.
//!
//! ```text
//! files (bytes) ─► Pair::parse ─► CertificateStore ◄─ replace ── a changed file, a reload
//!                                       │
//! settings ─► server_config ────────────┴─► Arc<rustls::ServerConfig> ─► connections ─► Session, HandshakeFailure
//!                                       ┌─┘
//! state directory ─► TicketKeys ─► TicketKeyRing ◄─ replace ── a rotation, a changed file
//! ```
//!
//! A [`ServerConfig`](rustls::ServerConfig) belongs to a configuration: a reload makes new ones for the frontends that have
//! changed, and connections go on with the one that they began with. Certificates and ticket keys change beneath it, at any
//! time, without a lock: a handshake that has chosen its certificate finishes with it.
//!
//! # Sessions
//!
//! A client of TLS 1.3, or of TLS 1.2 with tickets, keeps its session itself, in a ticket that every thread, every process
//! after a restart, and every load balancer with the same keys can read ([`TicketKeys`]). For clients without tickets a
//! bounded cache in memory does ([`SessionCache`]). A session can be resumed only at the frontend that it began at, within
//! [`TICKET_LIFETIME`], and as long as that frontend trusts the same client CAs and revocation lists; with a client
//! certificate it ends within a day of the last full handshake, however often it is resumed.
//!
//! # What is deliberately absent
//!
//! Early data (0-RTT), which can be replayed; renegotiation and compression, which rustls has not; RSA key exchange, CBC and
//! versions before TLS 1.2.

mod certificates;
mod challenges;
mod check;
mod client_auth;
mod client_config;
mod context;
mod crl;
mod handshake;
mod ocsp;
mod pem;
mod provider;
mod resolver;
mod server_config;
mod server_failure;
mod sessions;
mod settings;
mod tickets;
mod x509;

pub use certificates::{ChainFault, KeyKind, Pair, PairError, PairFiles};
pub use challenges::{ACME_TLS, ChallengeError, Challenges, Shown, challenge_of};
pub use check::{CertificateFinding, EXPIRY_WARNING, uncovered};
pub use client_auth::ClientAuthError;
pub use client_config::{
    ClientConfigs, ClientSettings, ClientSettingsError, Trust, client_configs, for_one_server,
};
pub use crl::StaleList;
pub use handshake::{HandshakeFailure, ServerSession, Session};
pub use ocsp::{OcspError, OcspResponse, OcspStatus};
pub use pem::{PemError, has_private_key};
pub use resolver::{Broken, CertificateStore, Certificates, NamedPair, ReadPair};
pub use server_config::{SettingsError, Shared, server_config};
pub use server_failure::{handshake_failure, server_failure};
pub use sessions::SessionCache;
pub use settings::{ClientAuthSettings, ServerSettings};
pub use tickets::{KEY_BYTES, ROTATION, TICKET_LIFETIME, TicketKeyError, TicketKeyRing, TicketKeys};
pub use x509::{Facts, Identity, MAX_SUBJECT, X509Error, date};

#[cfg(test)]
pub(crate) mod tests;
