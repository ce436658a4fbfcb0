//! Asking a source once.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Failure, Reader,
    answer::{self, Answer, Limits, Record},
    service::Service,
};
use crate::{
    client::{http::HttpError, resolver::Resolver},
    config::{AnswerFormat, Discovery, DiscoverySource, NameQuery},
    sys::config_file,
};

/// Where the host says which name servers it asks, and what it knows without them.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Most bytes of each; a hosts file against advertisements has some four million.
const MAX_HOST_FILE: usize = 16 << 20;

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
}

impl Asker {
    /// Of a source that has not been asked yet.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self {
            reader,
            service: None,
        }
    }

    /// Reads anew, before the source is asked again, what it is asked with.
    pub fn forget(&mut self) {
        self.service = None;
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
                let asked = async {
                    let ready = match &mut self.service {
                        Some(ready) => ready,
                        none => none.insert(Service::prepare(service, &*self.reader).await?),
                    };
                    let answer = ready.ask(service, &host_resolver().await?, limits.bytes).await;
                    answer.map_err(|error| of_http(&error, limits))
                };
                let asked = timeout(service.timeout, asked).await;
                (
                    Ok(asked.unwrap_or(Err(Failure::Silent(service.timeout)))?),
                    format,
                )
            }
            DiscoverySource::Dns { query, port } => {
                let asked = timeout(query.timeout, addresses(query, port.get())).await;
                let (records, ttl) = asked.unwrap_or(Err(Failure::Silent(query.timeout)))?;
                return named(records, ttl, query, limits);
            }
            DiscoverySource::Srv { query } => {
                let asked = timeout(query.timeout, services(query)).await;
                let (records, ttl) = asked.unwrap_or(Err(Failure::Silent(query.timeout)))?;
                return named(records, ttl, query, limits);
            }
        };
        let answer = parse(bytes.map_err(Failure::Unreadable)?, format.clone(), limits).await?;
        Ok(Answered { answer, ttl: None })
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

/// Said as of any other source.
fn of_http(error: &HttpError, limits: Limits) -> Failure {
    match error {
        HttpError::TooLarge(_) => answer::Malformed::TooLarge(limits.bytes).into(),
        other => Failure::Unreadable(other.to_string()),
    }
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

async fn addresses(query: &NameQuery, port: u16) -> Result<(Vec<Record>, Duration), Failure> {
    let resolver = resolver(query).await?;
    let answer = resolver.addresses(query.name.as_str(), query.family.all()).await;
    let answer = answer.map_err(|error| Failure::Unreadable(error.to_string()))?;
    let record = |ip| Record {
        addr: SocketAddr::new(ip, port),
        weight: 1,
        priority: 1,
    };
    Ok((answer.records.into_iter().map(record).collect(), answer.ttl))
}

async fn services(query: &NameQuery) -> Result<(Vec<Record>, Duration), Failure> {
    let resolver = resolver(query).await?;
    let answer = resolver.services(query.name.as_str(), query.family.all()).await;
    let answer = answer.map_err(|error| Failure::Unreadable(error.to_string()))?;
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

async fn resolver(query: &NameQuery) -> Result<Resolver, Failure> {
    if query.resolvers.is_empty() {
        return host_resolver().await;
    }
    Resolver::of_servers(&query.resolvers).map_err(|error| Failure::Unreadable(error.to_string()))
}

/// As the host asks now: both files may have changed since the last time.
async fn host_resolver() -> Result<Resolver, Failure> {
    let read = || {
        let bytes = |path: &str| config_file::read(Path::new(path), MAX_HOST_FILE);
        let resolv_conf = bytes(RESOLV_CONF).map_err(|error| error.to_string())?;
        // a host without one knows no names by itself
        let hosts = bytes(HOSTS).unwrap_or_default();
        Resolver::of_host(&resolv_conf, &hosts).map_err(|error| error.to_string())
    };
    spawn_blocking(read)
        .await
        .map_err(|_| internal())?
        .map_err(Failure::Unreadable)
}

fn internal() -> Failure {
    Failure::Unreadable("internal error while it was read".to_owned())
}
