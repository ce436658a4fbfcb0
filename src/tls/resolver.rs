//! Which certificate a client gets.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificates::{Pair, PairError};
use crate::snapshot::{ServedCertificate, ServedCertificates};

/// The certificates of a frontend. Threads read them while others replace them; nobody waits, and a handshake that has its
/// certificate keeps it.
#[derive(Debug, Default)]
pub struct CertificateStore {
    current: ArcSwap<Certificates>,
    /// Who replaces something, one after the other.
    replacing: Mutex<()>,
}

/// A certificate as it was read, under the name that the configuration has for it (its path).
pub type ReadPair = (Arc<str>, Result<Arc<Pair>, PairError>);

/// A certificate with what it is called.
pub type NamedPair = (Arc<str>, Arc<Pair>);

/// A certificate that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What is wrong.
    pub why: PairError,
    /// Whether the one that was there before is still served.
    pub kept: bool,
}

/// A set of certificates, in the order of the configuration, and where to find one by the name that a client asks for.
#[derive(Debug, Default)]
pub struct Certificates {
    /// Those of the configuration.
    pairs: Vec<NamedPair>,
    /// Those that were ordered, after them.
    ordered: Vec<NamedPair>,
    exact: HashMap<Box<str>, Candidates>,
    /// By what follows the star and its dot.
    wildcard: HashMap<Box<str>, Candidates>,
    /// For clients that ask for no name, or for one that is not here.
    default: Candidates,
}

/// Certificates for one name, the preferred one first.
#[derive(Debug, Clone, Default)]
struct Candidates(Vec<Arc<Pair>>);

impl CertificateStore {
    /// A store with these certificates.
    #[must_use]
    pub fn new(pairs: Vec<NamedPair>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Certificates::new(pairs, Vec::new())),
            replacing: Mutex::default(),
        })
    }

    /// Serves these ordered certificates from now on, after those of the configuration.
    pub fn replace_ordered(&self, ordered: Vec<NamedPair>) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = self.current.load().pairs.clone();
        self.current.store(Arc::new(Certificates::new(pairs, ordered)));
    }

    /// Serves these certificates from now on. For one that could not be read, the one of the same name that was there stays;
    /// what was there and is not named any more goes.
    pub fn replace(&self, read: Vec<ReadPair>) -> Vec<Broken> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load();
        let (mut pairs, mut broken) = (Vec::new(), Vec::new());
        for (name, result) in read {
            let why = match result {
                Ok(pair) => {
                    pairs.push((name, pair));
                    continue;
                }
                Err(why) => why,
            };
            let old = before.pairs.iter().find(|(other, _)| *other == name);
            pairs.extend(old.cloned());
            let kept = old.is_some();
            broken.push(Broken { name, why, kept });
        }
        let ordered = before.ordered.clone();
        self.current.store(Arc::new(Certificates::new(pairs, ordered)));
        broken
    }

    /// The certificates that are served now.
    #[must_use]
    pub fn current(&self) -> Arc<Certificates> {
        self.current.load_full()
    }
}

impl ServedCertificates for CertificateStore {
    fn served(&self) -> Vec<ServedCertificate> {
        let current = self.current.load();
        let served = |(name, pair): &NamedPair, is_ordered| {
            let facts = pair.facts();
            ServedCertificate {
                name: Arc::clone(name),
                is_ordered,
                subject: facts.subject.clone(),
                issuer: facts.issuer.clone(),
                names: facts.names.clone(),
                key: pair.kind().label(),
                not_before: facts.not_before,
                not_after: facts.not_after,
                serial: facts.serial.clone(),
            }
        };
        let of_files = current.pairs.iter().map(|pair| served(pair, false));
        let ordered = current.ordered.iter().map(|pair| served(pair, true));
        of_files.chain(ordered).collect()
    }
}

impl Certificates {
    /// Puts certificates in order: of several for one name and of one kind, the first is served.
    fn new(pairs: Vec<NamedPair>, ordered: Vec<NamedPair>) -> Self {
        let mut set = Self::default();
        for (_, pair) in pairs.iter().chain(&ordered) {
            for name in &pair.facts().names {
                match name.strip_prefix("*.") {
                    Some(suffix) => set.wildcard.entry(suffix.into()).or_default().add(pair),
                    None => set.exact.entry(name.clone()).or_default().add(pair),
                }
            }
        }
        if let Some((_, first)) = pairs.iter().chain(&ordered).next() {
            // with those of other kinds for the same name, for clients that cannot use the first
            let of_its_name = first.facts().names.first().and_then(|name| set.named(name));
            set.default = of_its_name.cloned().unwrap_or_default();
            set.default.add(first);
        }
        (set.pairs, set.ordered) = (pairs, ordered);
        set
    }

    /// The certificates of the configuration, with their names there.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &Pair)> {
        self.pairs.iter().map(|(name, pair)| (&**name, &**pair))
    }

    /// Every name that a certificate is for, wildcards as they are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.pairs.iter().chain(&self.ordered);
        let all = all.flat_map(|(_, pair)| &pair.facts().names);
        all.map(|name| &**name)
    }

    /// Whether a certificate covers a host name. One for every name right below a top-level domain (`*.test`) covers none:
    /// clients refuse it.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let host = folded(host);
        let is_below_a_domain = host.split('.').count() > 2;
        self.exact.contains_key(&*host) || is_below_a_domain && self.wildcard_of(&host).is_some()
    }

    /// The first certificate that suits a client: by the very name, by a wildcard for it, or the default one. If none suits,
    /// one that does not: then rustls ends the handshake for want of a suite in common, as a client expects it
    /// (handshake_failure; without a certificate it would be access_denied).
    fn choose(
        &self,
        host: Option<&str>,
        is_strict: bool,
        suits: impl Fn(&Pair) -> bool,
    ) -> Option<&Arc<Pair>> {
        let host = host.map(folded);
        let exact = host.as_deref().and_then(|host| self.exact.get(host));
        let wildcard = host.as_deref().and_then(|host| self.wildcard_of(host));
        let default = (!is_strict).then_some(&self.default);
        let candidates = || [exact, wildcard, default].into_iter().flatten();
        let suitable = candidates().find_map(|candidates| candidates.0.iter().find(|pair| suits(pair)));
        suitable.or_else(|| candidates().find_map(|candidates| candidates.0.first()))
    }

    /// The candidates of a name as certificates write it.
    fn named(&self, name: &str) -> Option<&Candidates> {
        match name.strip_prefix("*.") {
            Some(suffix) => self.wildcard.get(suffix),
            None => self.exact.get(name),
        }
    }

    /// A wildcard stands for exactly one label (RFC 9525, section 6.3).
    fn wildcard_of(&self, host: &str) -> Option<&Candidates> {
        let (label, suffix) = host.split_once('.')?;
        self.wildcard.get(suffix).filter(|_| !label.is_empty())
    }
}

impl Candidates {
    /// Adds one unless its kind is there already.
    fn add(&mut self, pair: &Arc<Pair>) {
        if self.0.iter().all(|other| other.kind() != pair.kind()) {
            self.0.push(Arc::clone(pair));
            self.0.sort_by_key(|pair| pair.kind());
        }
    }
}

/// A host name in lower case, without the dot that may end it.
fn folded(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Chooses a certificate for each handshake.
#[derive(Debug)]
pub(super) struct Resolver {
    store: Arc<CertificateStore>,
    strict_sni: bool,
    clock: fn() -> SystemTime,
}

impl Resolver {
    /// Chooses among the certificates that the store has at the time.
    pub const fn new(store: Arc<CertificateStore>, strict_sni: bool, clock: fn() -> SystemTime) -> Self {
        Self {
            store,
            strict_sni,
            clock,
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has left those only that go with a suite that both sides have
        let schemes = hello.signature_schemes();
        let suits = |pair: &Pair| pair.key().choose_scheme(schemes).is_some();
        let set = self.store.current.load();
        let chosen = set.choose(hello.server_name(), self.strict_sni, suits)?;
        Some(Arc::clone(chosen.certified_at(self.clock)))
    }
}
