//! Asking name servers: addresses and services of a name, with how long they may be believed.
//!
//! The answers of a name are not kept here: who asks goes by their time to live.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Hosts, Resolver as Hickory, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RData, RecordType},
    },
    system_conf::parse_resolv_conf,
};

use crate::base::IpFamily;

/// How long one name server is waited for, and how often all are asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Services of a name whose addresses are asked for, at most.
const MAX_TARGETS: usize = 1_024;

/// Aliases that lead from a name to its addresses, at most.
const MAX_ALIASES: usize = 16;

/// Asks name servers. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    servers: Arc<TokioResolver>,
    /// What is known without asking.
    hosts: Arc<Hosts>,
    search: Arc<Search>,
}

/// Under which domains a name may be meant, as resolv.conf(5) has it.
#[derive(Debug, Default)]
struct Search {
    domains: Vec<Name>,
    /// A name with so many dots is asked for as it is first.
    dots: usize,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records, in the order of the answer.
    pub records: Vec<T>,
    /// How long they may be believed.
    pub ttl: Duration,
}

/// An SRV record (RFC 2782) with the addresses of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest is used first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// The host's name, without the dot at its end.
    pub target: String,
    /// The host's addresses.
    pub addresses: Vec<IpAddr>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name, or resolv.conf, cannot be read.
    #[error("{0}")]
    Unusable(String),
    /// There is no such name.
    #[error("{0}: no such name (NXDOMAIN)")]
    NoSuchName(String),
    /// The name has no record of the kind.
    #[error("{name}: it has no {kind} record")]
    NoRecord {
        /// The name.
        name: String,
        /// `A`, `AAAA` or `SRV`.
        kind: &'static str,
    },
    /// It is an alias (CNAME) of itself in the end, or of too many others.
    #[error("{0}: its aliases (CNAME) lead in a circle, or are more than {MAX_ALIASES}")]
    Circular(String),
    /// The name servers do not answer, or not usefully.
    #[error("{name} ({kind}): {why}")]
    Failed {
        /// The name.
        name: String,
        /// `A`, `AAAA` or `SRV`.
        kind: &'static str,
        /// Why.
        why: String,
    },
}

impl ResolveError {
    /// Whether a name server has said no: there is nothing.
    const fn is_no(&self) -> bool {
        matches!(self, Self::NoSuchName(_) | Self::NoRecord { .. })
    }
}

impl Resolver {
    /// Asks as this host does: by the content of its resolv.conf(5), after that of hosts(5).
    ///
    /// # Errors
    /// resolv.conf cannot be read, or names no server.
    pub fn of_host(resolv_conf: &[u8], hosts: &[u8]) -> Result<Self, ResolveError> {
        // without a name server it is the one of this host (resolv.conf(5)); hickory wants it written
        let names_one = resolv_conf
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"nameserver"));
        let with_one = [resolv_conf, b"\nnameserver 127.0.0.1\n"].concat();
        let read = parse_resolv_conf(if names_one { resolv_conf } else { &with_one });
        let (config, mut options) =
            read.map_err(|error| ResolveError::Unusable(format!("/etc/resolv.conf: {error}")))?;
        // none at all would be over before it began
        options.timeout = options.timeout.max(Duration::from_secs(1));
        let mut known = Hosts::default();
        known
            .read_hosts_conf(hosts)
            .map_err(|error| ResolveError::Unusable(format!("/etc/hosts: {error}")))?;
        Self::build(config, options, known)
    }

    /// Asks these servers, one after the other.
    ///
    /// # Errors
    /// None are given.
    pub fn of_servers(servers: &[SocketAddr]) -> Result<Self, ResolveError> {
        let servers = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        Self::build(config, options, Hosts::default())
    }

    fn build(config: ResolverConfig, mut options: ResolverOpts, hosts: Hosts) -> Result<Self, ResolveError> {
        options.cache_size = 0;
        // in the order that they were written in, as resolv.conf(5) says
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.edns0 = true;
        options.try_tcp_on_error = true;
        // it would look for the first name of the search list alone
        options.use_hosts_file = ResolveHosts::Never;
        let search = Search {
            domains: match config.search() {
                [] => config.domain().cloned().into_iter().collect(),
                list => list.to_vec(),
            },
            dots: options.ndots,
        };
        let built = Hickory::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build();
        let servers = built.map_err(|error| ResolveError::Unusable(error.to_string()))?;
        Ok(Self {
            servers: Arc::new(servers),
            hosts: Arc::new(hosts),
            search: Arc::new(search),
        })
    }

    /// The addresses of a name in these families. A family in which it has none is no error as long as another has.
    ///
    /// # Errors
    /// There are none, or a family could not be asked for: a part of the addresses would be taken for all.
    pub async fn addresses(&self, name: &str, families: &[IpFamily]) -> Result<Answer<IpAddr>, ResolveError> {
        let parsed = parse(name)?;
        if let Some(known) = self.known(&parsed, families) {
            return Ok(known);
        }
        let candidates = self.search.candidates(&parsed);
        first(candidates, |candidate| {
            self.addresses_of(name, candidate, families)
        })
        .await
    }

    /// What the hosts file says.
    fn known(&self, name: &Name, families: &[IpFamily]) -> Option<Answer<IpAddr>> {
        let mut whole = name.clone();
        whole.set_fqdn(true);
        let lookups = (families.iter()).filter_map(|family| {
            self.hosts
                .lookup_static_host(&Query::query(whole.clone(), kind(*family).record()))
        });
        let mut known = Answer {
            records: Vec::new(),
            ttl: Duration::MAX,
        };
        for lookup in lookups {
            known.add(&lookup);
        }
        (!known.records.is_empty()).then_some(known)
    }

    async fn addresses_of(
        &self,
        name: &str,
        whole: Name,
        families: &[IpFamily],
    ) -> Result<Answer<IpAddr>, ResolveError> {
        let mut all = Answer {
            records: Vec::new(),
            ttl: Duration::MAX,
        };
        let mut none = None;
        for family in families {
            match self.lookup(name, &whole, kind(*family)).await {
                Ok(lookup) => all.add(&lookup),
                Err(error) if error.is_no() => none = Some(error),
                Err(error) => return Err(error),
            }
        }
        match none {
            Some(ResolveError::NoRecord { .. })
                if all.records.is_empty() && self.is_circular(&whole).await =>
            {
                Err(ResolveError::Circular(name.to_owned()))
            }
            Some(error) if all.records.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    /// Whether the aliases of a name lead to no end: to one that has been, or on and on.
    async fn is_circular(&self, whole: &Name) -> bool {
        let mut seen = vec![whole.clone()];
        while seen.len() <= MAX_ALIASES {
            let Some(last) = seen.last() else { return false };
            let Ok(lookup) = self.servers.lookup(last.clone(), RecordType::CNAME).await else {
                return false;
            };
            let alias = lookup.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(alias) if record.name == *last => Some(alias.0.clone()),
                _ => None,
            });
            match alias {
                None => return false,
                Some(alias) if seen.contains(&alias) => return true,
                Some(alias) => seen.push(alias),
            }
        }
        true
    }

    /// The services of a name, such as `_http._tcp.example.com`, with the addresses of their hosts: those that came with the answer,
    /// else those that are asked for.
    ///
    /// # Errors
    /// There are none, or the addresses of one could not be asked for. One whose host has none is among them.
    pub async fn services(&self, name: &str, families: &[IpFamily]) -> Result<Answer<Service>, ResolveError> {
        let candidates = self.search.candidates(&parse(name)?);
        let lookup = first(candidates, |candidate| async move {
            self.lookup(name, &candidate, Kind::Srv).await
        })
        .await?;
        let mut answer = Answer {
            records: Vec::new(),
            ttl: ttl(&lookup),
        };
        let glue = glue(&lookup, families);
        for record in lookup.answers() {
            let RData::SRV(srv) = &record.data else { continue };
            // "." says that there is no such service
            if srv.target.is_root() || answer.records.len() >= MAX_TARGETS {
                continue;
            }
            let target = srv.target.to_utf8().trim_end_matches('.').to_owned();
            let addresses = match glue.get(&srv.target) {
                Some(addresses) => addresses.clone(),
                None => {
                    let mut name = srv.target.clone();
                    name.set_fqdn(true);
                    match self.addresses(&name.to_utf8(), families).await {
                        Ok(found) => {
                            answer.ttl = answer.ttl.min(found.ttl);
                            found.records
                        }
                        // one host less is no reason to forget the others
                        Err(error) if error.is_no() => Vec::new(),
                        Err(error) => return Err(error),
                    }
                }
            };
            answer.records.push(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target,
                addresses,
            });
        }
        Ok(answer)
    }

    async fn lookup(&self, name: &str, whole: &Name, kind: Kind) -> Result<Lookup, ResolveError> {
        let lookup = self.servers.lookup(whole.clone(), kind.record()).await;
        lookup.map_err(|error| failure(name, kind, &error))
    }
}

impl Answer<IpAddr> {
    fn add(&mut self, lookup: &Lookup) {
        let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
        self.records.extend(addresses);
        self.ttl = self.ttl.min(ttl(lookup));
    }
}

impl Search {
    /// The whole names that a name may stand for, the likeliest first.
    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut whole = name.clone();
        whole.set_fqdn(true);
        if name.is_fqdn() {
            return vec![whole];
        }
        let below = self
            .domains
            .iter()
            .filter_map(|domain| name.clone().append_domain(domain).ok());
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        match dots >= self.dots {
            true => std::iter::once(whole).chain(below).collect(),
            false => below.chain(std::iter::once(whole.clone())).collect(),
        }
    }
}

/// What the first name that exists gives. Where none does, the first answer that is no plain no is why.
async fn first<T, F: Future<Output = Result<T, ResolveError>>>(
    candidates: Vec<Name>,
    ask: impl Fn(Name) -> F,
) -> Result<T, ResolveError> {
    let mut why = None;
    let last = candidates.len().saturating_sub(1);
    for (index, candidate) in candidates.into_iter().enumerate() {
        match ask(candidate).await {
            Ok(found) => return Ok(found),
            Err(error) if error.is_no() => {
                why.get_or_insert(error);
            }
            // name servers of a network of its own refuse a name without a domain, which is the last that it can be
            Err(error) if index < last || why.is_none() => return Err(error),
            Err(_) => {}
        }
    }
    Err(why.unwrap_or_else(|| ResolveError::Unusable("there is no name to ask for".to_owned())))
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

/// A kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    const fn record(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Srv => RecordType::SRV,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }
}

const fn kind(family: IpFamily) -> Kind {
    match family {
        IpFamily::V4 => Kind::A,
        IpFamily::V6 => Kind::Aaaa,
    }
}

fn parse(name: &str) -> Result<Name, ResolveError> {
    Name::from_str(name)
        .map_err(|error| ResolveError::Unusable(format!("{name} is no name of a host: {error}")))
}

/// How long all records of an answer may be believed.
fn ttl(lookup: &Lookup) -> Duration {
    let seconds = lookup.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(seconds.unwrap_or(0).into())
}

/// The addresses that came with an answer, by host, of these families alone. A host of which only a part came is asked for anew:
/// it is not known which part.
fn glue(lookup: &Lookup, families: &[IpFamily]) -> BTreeMap<Name, Vec<IpAddr>> {
    let mut glue = BTreeMap::<Name, Vec<IpAddr>>::new();
    for record in lookup.additionals() {
        if let Some(address) = record.data.ip_addr() {
            glue.entry(record.name.clone()).or_default().push(address);
        }
    }
    glue.retain(|_, addresses| {
        let is_whole = families
            .iter()
            .all(|family| addresses.iter().any(|ip| IpFamily::of(*ip) == *family));
        addresses.retain(|ip| families.contains(&IpFamily::of(*ip)));
        is_whole
    });
    glue
}

fn failure(name: &str, kind: Kind, error: &NetError) -> ResolveError {
    let name = name.to_owned();
    if error.is_nx_domain() {
        return ResolveError::NoSuchName(name);
    }
    let kind = kind.label();
    if error.is_no_records_found() {
        return ResolveError::NoRecord { name, kind };
    }
    let why = match error {
        NetError::Timeout => "the name servers do not answer".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        NetError::Io(error) if error.raw_os_error().is_some() => {
            format!("no name server can be reached: {error}")
        }
        NetError::Io(_) => "the name server broke the connection off".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server answers: {code}"),
        NetError::Busy => "too many names are asked for at once".to_owned(),
        NetError::Truncated => "the name server's answer is cut off, by TCP too".to_owned(),
        NetError::Proto(_) | NetError::QueryCaseMismatch | NetError::ForeignClassRecord { .. } => {
            "the name server's answer cannot be understood".to_owned()
        }
        _ => "the name servers give no usable answer".to_owned(),
    };
    ResolveError::Failed { name, kind, why }
}
