//! Asking a source once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use tokio::time::timeout;

#[cfg(feature = "kubernetes")]
use super::kubernetes::{self, Watched};
#[cfg(feature = "lxd")]
use super::lxd;
use super::{
    Answered, Failure, Reader,
    answer::{self, Limits, Record},
    caller::{Caller, parsed, unresolved},
    consul, judge, names,
    service::TokenHeader,
};
#[cfg(feature = "docker")]
use super::{docker, lines::Lines};
use crate::{
    client::resolver::Resolver,
    config::{ConsulQuery, Discovery, DiscoverySource, HttpService, NameQuery},
};

/// Asks one source, time and again.
pub struct Asker {
    caller: Caller,
    /// What Consul has said last, until asking fails: it answers when there is something newer.
    index: Option<u64>,
    /// What Docker tells of its containers, until asking fails.
    #[cfg(feature = "docker")]
    events: Option<Lines>,
    /// What Kubernetes has said of a service, and tells of it, until asking fails.
    #[cfg(feature = "kubernetes")]
    watched: Option<Watched>,
}

impl Asker {
    /// Of a source that has not been asked yet.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self {
            caller: Caller::new(reader),
            index: None,
            #[cfg(feature = "docker")]
            events: None,
            #[cfg(feature = "kubernetes")]
            watched: None,
        }
    }

    /// Reads anew, before the source is asked again, what it is asked with.
    pub fn forget(&mut self) {
        self.caller.forget();
        self.index = None;
        #[cfg(feature = "docker")]
        {
            self.events = None;
        }
        #[cfg(feature = "kubernetes")]
        {
            self.watched = None;
        }
    }

    /// Asks a source once.
    ///
    /// # Errors
    /// It fails.
    pub async fn ask(&mut self, settings: &Discovery) -> Result<Answered, Failure> {
        let answered = self.answered(settings).await;
        let answered = answered.map_err(|failure| self.caller.harmless(failure));
        if answered.is_err() {
            // a certificate or a token that was replaced may be why
            self.forget();
        }
        answered
    }

    async fn answered(&mut self, settings: &Discovery) -> Result<Answered, Failure> {
        let limits = Limits::of(settings);
        let (bytes, format) = match &settings.source {
            DiscoverySource::File { path, format } => (self.caller.reader().read(path.clone()).await, format),
            DiscoverySource::Exec { command, format } => {
                (self.caller.reader().run(command.clone()).await, format)
            }
            DiscoverySource::Http { service, format } => {
                let asked = timeout(service.timeout, self.ask_service(service, limits)).await;
                (
                    Ok(asked.unwrap_or(Err(Failure::Silent(service.timeout)))?),
                    format,
                )
            }
            DiscoverySource::Consul { query } => {
                let within = query.agent.timeout + consul::wait(self.index);
                let asked = timeout(within, self.ask_consul(query, limits)).await;
                let bytes = asked.unwrap_or(Err(Failure::Silent(within)))?;
                return Ok(Answered {
                    answer: parsed(move || answer::of_consul(&bytes, limits)).await?,
                    ttl: Some(consul::REST),
                });
            }
            #[cfg(feature = "docker")]
            DiscoverySource::Docker { query } => {
                return docker::ask(&mut self.caller, &mut self.events, query, settings).await;
            }
            #[cfg(feature = "kubernetes")]
            DiscoverySource::Kubernetes { query } => {
                return kubernetes::ask(&mut self.caller, &mut self.watched, query, limits).await;
            }
            #[cfg(feature = "lxd")]
            DiscoverySource::Lxd { query } => return lxd::ask(&mut self.caller, query, limits).await,
            #[cfg(not(feature = "docker"))]
            DiscoverySource::Docker { .. } => return Err(not_built()),
            #[cfg(not(feature = "kubernetes"))]
            DiscoverySource::Kubernetes { .. } => return Err(not_built()),
            #[cfg(not(feature = "lxd"))]
            DiscoverySource::Lxd { .. } => return Err(not_built()),
            DiscoverySource::Dns { query, port } => {
                let asked = timeout(query.timeout, self.addresses(query, port.get())).await;
                let (records, ttl) = asked.unwrap_or(Err(Failure::Silent(query.timeout)))?;
                return named(records, ttl, query, limits);
            }
            DiscoverySource::Srv { query } => {
                let asked = timeout(query.timeout, self.services(query)).await;
                let (records, ttl) = asked.unwrap_or(Err(Failure::Silent(query.timeout)))?;
                return named(records, ttl, query, limits);
            }
            // it is never asked: see Sources::follow
            DiscoverySource::Api => {
                return Err(Failure::Unreadable("only operators name its servers".into()));
            }
            DiscoverySource::Names {
                servers,
                timeout,
                min_ttl,
                max_ttl,
            } => {
                let resolver = self.caller.host_resolver().await?;
                let found = names::ask(servers, &resolver, *timeout).await;
                let answer = answer::of_names(&found.names, limits)?;
                if answer.unanswered.len() == servers.len() {
                    let why = judge::why_unanswered(&answer.unanswered);
                    return Err(Failure::Unreadable(why.unwrap_or_default()));
                }
                let ttl = found.ttl.clamp(*min_ttl, *max_ttl);
                // a name that failed is asked for again as if nothing had been answered
                let soon = match answer.unanswered.as_slice() {
                    [] => ttl,
                    _ => ttl.min(settings.interval),
                };
                return Ok(Answered {
                    answer,
                    ttl: Some(soon),
                });
            }
        };
        let (bytes, format) = (bytes.map_err(Failure::Unreadable)?, format.clone());
        let answer = parsed(move || answer::parse(&format, &bytes, limits)).await?;
        Ok(Answered { answer, ttl: None })
    }

    async fn ask_service(&mut self, service: &HttpService, limits: Limits) -> Result<Vec<u8>, Failure> {
        let token = TokenHeader::Authorization;
        self.caller
            .body(service, &service.url.target, token, limits)
            .await
    }

    async fn ask_consul(&mut self, query: &ConsulQuery, limits: Limits) -> Result<Vec<u8>, Failure> {
        let target = consul::target(query, self.index);
        let opened = self
            .caller
            .open(&query.agent, &target, TokenHeader::Consul)
            .await?;
        let index = consul::next(
            self.index,
            opened.headers.get(consul::INDEX).map(HeaderValue::as_bytes),
        );
        let body = opened.success(limits.bytes).await;
        let body = body.map_err(|error| self.caller.failure(&error, limits))?;
        self.index = index;
        Ok(body)
    }

    async fn addresses(&self, query: &NameQuery, port: u16) -> Result<(Vec<Record>, Duration), Failure> {
        let resolver = self.resolver(query).await?;
        let answer = resolver.addresses(query.name.as_str(), query.family.all()).await;
        let answer = answer.map_err(unresolved)?;
        let record = |ip| Record {
            addr: SocketAddr::new(ip, port),
            weight: 1,
            priority: 1,
        };
        Ok((answer.records.into_iter().map(record).collect(), answer.ttl))
    }

    async fn services(&self, query: &NameQuery) -> Result<(Vec<Record>, Duration), Failure> {
        let resolver = self.resolver(query).await?;
        let answer = resolver.services(query.name.as_str(), query.family.all()).await;
        let answer = answer.map_err(unresolved)?;
        let records = answer.records.into_iter().flat_map(|service| {
            let (port, weight, priority) = (service.port, service.weight, service.priority);
            (service.addresses.into_iter()).map(move |ip| Record {
                addr: SocketAddr::new(ip, port),
                weight,
                priority,
            })
        });
        Ok((records.collect(), answer.ttl))
    }

    async fn resolver(&self, query: &NameQuery) -> Result<Resolver, Failure> {
        if query.resolvers.is_empty() {
            return self.caller.host_resolver().await;
        }
        Resolver::of_servers(&query.resolvers).map_err(unresolved)
    }
}

/// Of a kind that no configuration can have: it is refused (see `DiscoveryKind::feature`).
#[cfg(not(all(feature = "docker", feature = "kubernetes", feature = "lxd")))]
fn not_built() -> Failure {
    Failure::Unreadable("this build cannot ask it".into())
}

fn named(
    records: Vec<Record>,
    ttl: Duration,
    query: &NameQuery,
    limits: Limits,
) -> Result<Answered, Failure> {
    Ok(Answered {
        answer: answer::of_records(records, limits)?,
        ttl: Some(ttl.clamp(query.min_ttl, query.max_ttl.max(query.min_ttl))),
    })
}
