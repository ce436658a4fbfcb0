//! Asking a source once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Failure, Reader,
    answer::{self, Answer, Limits, Record},
    consul, names,
    service::{Service, TokenHeader},
};
use crate::{
    base::{Host, HttpUrl},
    client::{
        http::{HttpError, Opened},
        resolver::{ResolveError, Resolver},
    },
    config::{
        AnswerFormat, ConsulQuery, Discovery, DiscoverySource, Families, HOSTS, HttpService, NameQuery,
        RESOLV_CONF,
    },
};

/// What a source has answered.
#[derive(Debug)]
pub struct Answered {
    /// The servers.
    pub answer: Answer,
    /// How long it says that this may be believed.
    pub ttl: Option<Duration>,
}

/// Asks one source, time and again.
pub struct Asker {
    reader: Arc<dyn Reader>,
    /// What a web server is asked with, until asking fails.
    service: Option<Service>,
    /// What Consul has said last, until asking fails: it answers when there is something newer.
    index: Option<u64>,
}

impl Asker {
    /// Of a source that has not been asked yet.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self {
            reader,
            service: None,
            index: None,
        }
    }

    /// Reads anew, before the source is asked again, what it is asked with.
    pub fn forget(&mut self) {
        self.service = None;
        self.index = None;
    }

    /// Asks a source once.
    ///
    /// # Errors
    /// It fails.
    pub async fn ask(&mut self, settings: &Discovery) -> Result<Answered, Failure> {
        let answered = self.answered(settings).await;
        if answered.is_err() {
            // a certificate or a token that was replaced may be why
            self.forget();
        }
        answered
    }

    async fn answered(&mut self, settings: &Discovery) -> Result<Answered, Failure> {
        let limits = Limits::of(settings);
        let (bytes, format) = match &settings.source {
            DiscoverySource::File { path, format } => (self.reader.read(path.clone()).await, format),
            DiscoverySource::Exec { command, format } => (self.reader.run(command.clone()).await, format),
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
                let parsed = spawn_blocking(move || answer::of_consul(&bytes, limits)).await;
                return Ok(Answered {
                    answer: parsed.map_err(|_| internal())??,
                    ttl: Some(consul::REST),
                });
            }
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
            DiscoverySource::Names {
                servers,
                timeout,
                min_ttl,
                max_ttl,
            } => {
                let resolver = self.host_resolver().await?;
                let found = names::ask(servers, &resolver, *timeout).await?;
                let answer = answer::of_names(&found.names, limits)?;
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
        let answer = parse(bytes.map_err(Failure::Unreadable)?, format.clone(), limits).await?;
        Ok(Answered { answer, ttl: None })
    }

    async fn ask_service(&mut self, service: &HttpService, limits: Limits) -> Result<Vec<u8>, Failure> {
        let opened = self
            .open(service, &service.url, TokenHeader::Authorization)
            .await?;
        (opened.success(limits.bytes).await).map_err(|error| self.of_http(&error, limits))
    }

    async fn ask_consul(&mut self, query: &ConsulQuery, limits: Limits) -> Result<Vec<u8>, Failure> {
        let url = query.agent.url.with_target(&consul::target(query, self.index));
        let opened = self.open(&query.agent, &url, TokenHeader::Consul).await?;
        let index = consul::next(
            self.index,
            opened.headers.get(consul::INDEX).map(HeaderValue::as_bytes),
        );
        let body = opened.success(limits.bytes).await;
        let body = body.map_err(|error| self.of_http(&error, limits))?;
        self.index = index;
        Ok(body)
    }

    async fn open(
        &mut self,
        service: &HttpService,
        url: &HttpUrl,
        token: TokenHeader,
    ) -> Result<Opened, Failure> {
        let addresses = match &service.url.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let resolver = self.host_resolver().await?;
                let found = resolver.addresses(name.as_str(), Families::Any.all()).await;
                found.map_err(unresolved)?.records
            }
        };
        let ready = match &mut self.service {
            Some(ready) => ready,
            none => none.insert(Service::prepare(service, token, &*self.reader).await?),
        };
        let opened = ready.ask(url, &addresses).await;
        opened.map_err(|error| Failure::Unreadable(error.to_string()))
    }

    /// What went wrong, without the token that a server may have said back.
    fn of_http(&self, error: &HttpError, limits: Limits) -> Failure {
        match error {
            HttpError::TooLarge(_) => answer::Malformed::TooLarge(limits.bytes).into(),
            other => {
                let text = other.to_string();
                Failure::Unreadable(match &self.service {
                    Some(service) => service.without_token(&text),
                    None => text,
                })
            }
        }
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
            return self.host_resolver().await;
        }
        Resolver::of_servers(&query.resolvers).map_err(unresolved)
    }

    /// As the host asks now: both files may have changed since the last time.
    async fn host_resolver(&self) -> Result<Resolver, Failure> {
        // a host without them has a name server of its own, and knows no names by itself
        let resolv_conf = self.reader.read(RESOLV_CONF.into()).await.unwrap_or_default();
        let hosts = self.reader.read(HOSTS.into()).await.unwrap_or_default();
        let made = spawn_blocking(move || Resolver::of_host(&resolv_conf, &hosts)).await;
        made.map_err(|_| internal())?.map_err(unresolved)
    }
}

impl Limits {
    /// Those of a source.
    #[must_use]
    pub fn of(settings: &Discovery) -> Self {
        Self {
            bytes: usize::try_from(settings.max_answer_bytes).unwrap_or(usize::MAX),
            servers: usize::try_from(settings.max_servers.get()).unwrap_or(usize::MAX),
        }
    }
}

async fn parse(bytes: Vec<u8>, format: AnswerFormat, limits: Limits) -> Result<Answer, Failure> {
    let parsed = spawn_blocking(move || answer::parse(&format, &bytes, limits)).await;
    Ok(parsed.map_err(|_| internal())??)
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

#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
fn unresolved(error: ResolveError) -> Failure {
    Failure::Unreadable(error.to_string())
}

fn internal() -> Failure {
    Failure::Unreadable("internal error while it was read".to_owned())
}
