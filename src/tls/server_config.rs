//! A frontend's settings as rustls takes them.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    KeyLog, ServerConfig,
    server::{NoClientAuth, ProducesTickets, danger::ClientCertVerifier},
};

use super::{
    client_auth::{self, ClientAuthError},
    context::Context,
    provider,
    resolver::{CertificateStore, Resolver},
    sessions::{SessionCache, Sessions},
    settings::ServerSettings,
    tickets::{TicketKeyRing, Tickets},
};
use crate::config::{CipherSuite, Group, TlsVersion};

/// What frontends share. All threads use it at once.
#[derive(Debug)]
pub struct Shared {
    /// The keys of tickets.
    pub tickets: Arc<TicketKeyRing>,
    /// Sessions of clients that know no tickets.
    pub sessions: SessionCache,
    /// The wall clock.
    pub clock: fn() -> SystemTime,
    /// Who gets the secrets of frontends with [`ServerSettings::key_log`].
    pub key_log: Arc<dyn KeyLog>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// `min_version` is above `max_version`.
    #[error("min_version {min} is above max_version {max}")]
    Versions {
        /// `min_version`.
        min: TlsVersion,
        /// `max_version`.
        max: TlsVersion,
    },
    /// TLS 1.2 is on, and `groups` names only groups of TLS 1.3.
    #[error(
        "groups names none that TLS 1.2 can use: add \"x25519\" or \"secp256r1\", or set min_version = \"1.3\""
    )]
    NoGroup,
    /// `client_ca` or `client_crl`.
    #[error(transparent)]
    ClientAuth(#[from] ClientAuthError),
    /// rustls refuses the combination.
    #[error("these settings cannot be used together: {0}")]
    Combination(rustls::Error),
}

/// Makes what a frontend's connections are opened with. It belongs to a configuration; certificates and ticket keys change
/// beneath it, in `store` and `shared`.
///
/// # Errors
/// The settings contradict each other, or the files of client certificates cannot be used.
pub fn server_config(
    settings: &ServerSettings,
    store: &Arc<CertificateStore>,
    shared: &Shared,
) -> Result<Arc<ServerConfig>, SettingsError> {
    let versions = versions(settings)?;
    let groups = groups(settings)?;
    let provider = Arc::new(provider::provider(&suites(settings, &versions), groups));
    let supported: Vec<_> = versions.iter().copied().map(provider::protocol_version).collect();
    let verifier: Arc<dyn ClientCertVerifier> = match &settings.client_auth {
        Some(auth) => client_auth::verifier(auth, &provider)?,
        None => Arc::new(NoClientAuth),
    };
    let resolver = Resolver::new(Arc::clone(store), settings.strict_sni, shared.clock);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&supported)
        .map_err(SettingsError::Combination)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let context = Context::new(settings);
    config.session_storage = Arc::new(Sessions::new(&shared.sessions, context.clone(), shared.clock));
    if settings.tickets {
        let tickets: Arc<dyn ProducesTickets> =
            Arc::new(Tickets::new(Arc::clone(&shared.tickets), context, shared.clock));
        config.ticketer = tickets;
    }
    if settings.key_log {
        config.key_log = Arc::clone(&shared.key_log);
    }
    // early data could be replayed to the server, which does not know that it was early: rustls' default, and it stays
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn versions(settings: &ServerSettings) -> Result<Vec<TlsVersion>, SettingsError> {
    let (min, max) = (settings.min_version, settings.max_version);
    if min > max {
        return Err(SettingsError::Versions { min, max });
    }
    let wanted = |version: &TlsVersion| (min..=max).contains(version);
    Ok(TlsVersion::ALL.into_iter().filter(wanted).collect())
}

fn groups(settings: &ServerSettings) -> Result<&[Group], SettingsError> {
    if settings.groups.is_empty() {
        return Ok(&Group::DEFAULT);
    }
    let has_tls12 = settings.min_version == TlsVersion::Tls12;
    if has_tls12 && settings.groups.iter().all(|group| group.is_tls13_only()) {
        return Err(SettingsError::NoGroup);
    }
    Ok(&settings.groups)
}

/// The suites that `ciphers` names, and all of a version of which it names none. Those of other versions must go: rustls
/// would take them for a reason to choose a certificate that the version in use has no suite for.
fn suites(settings: &ServerSettings, versions: &[TlsVersion]) -> Vec<CipherSuite> {
    let named = |version| settings.ciphers.iter().any(|suite| suite.version() == version);
    let default = CipherSuite::ALL
        .into_iter()
        .filter(|suite| !named(suite.version()));
    let all = settings.ciphers.iter().copied().chain(default);
    all.filter(|suite| versions.contains(&suite.version())).collect()
}
