//! Services that are asked over HTTP, time and again.

use std::sync::Arc;

use tokio::{net::UnixStream, task::spawn_blocking};

use super::{
    Failure, Reader,
    answer::{Limits, Malformed},
    service::{Service, TokenHeader},
};
use crate::{
    base::Host,
    client::{
        http::{HttpError, Opened},
        resolver::{ResolveError, Resolver},
    },
    config::{Families, HOSTS, HttpService, RESOLV_CONF},
};

/// Longest text of a failure, in characters: some of it may be the server's.
const MAX_TEXT: usize = 500;

/// Asks a service, with what it has been asked with before until asking fails.
pub(super) struct Caller {
    reader: Arc<dyn Reader>,
    ready: Option<Service>,
}

impl Caller {
    /// Of a service that has not been asked yet.
    pub(super) fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, ready: None }
    }

    /// What reads for it.
    pub(super) fn reader(&self) -> &dyn Reader {
        &*self.reader
    }

    /// Reads anew, before the service is asked again, what it is asked with.
    pub(super) fn forget(&mut self) {
        self.ready = None;
    }

    /// Asks for a target, a path with its query; the answer, of whatever status, is still to be read.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn open(
        &mut self,
        service: &HttpService,
        target: &str,
        token: TokenHeader,
    ) -> Result<Opened, Failure> {
        let addresses = match (&service.url.host, &service.socket) {
            (_, Some(_)) => Vec::new(),
            (Host::Ip(ip), None) => vec![*ip],
            (Host::Name(name), None) => {
                let resolver = self.host_resolver().await?;
                let found = resolver.addresses(name.as_str(), Families::Any.all()).await;
                found.map_err(unresolved)?.records
            }
        };
        let ready = match &mut self.ready {
            Some(ready) => ready,
            none => none.insert(Service::prepare(service, token, &*self.reader).await?),
        };
        let url = service.url.with_target(target);
        let opened = match service.socket {
            None => ready.ask(&url, &addresses).await,
            Some(path) => {
                let socket = self.reader.connect(path).await.map_err(Failure::Unreadable)?;
                let stream = UnixStream::from_std(socket.into());
                let stream = stream.map_err(|error| Failure::Unreadable(error.to_string()))?;
                ready.ask_over(stream, &url).await
            }
        };
        opened.map_err(|error| Failure::Unreadable(error.to_string()))
    }

    /// As [`open`](Self::open), if the answer is one of success.
    ///
    /// # Errors
    /// It is none, or there is none.
    #[cfg(feature = "docker")]
    pub(super) async fn stream(
        &mut self,
        service: &HttpService,
        target: &str,
        token: TokenHeader,
        limits: Limits,
    ) -> Result<Opened, Failure> {
        let opened = self.open(service, target, token).await?;
        if opened.status.is_success() {
            return Ok(opened);
        }
        match opened.success(limits.bytes).await {
            Err(error) => Err(self.failure(&error, limits)),
            Ok(_) => Err(internal()),
        }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// It is none of success, breaks off, or is too large.
    pub(super) async fn body(
        &mut self,
        service: &HttpService,
        target: &str,
        token: TokenHeader,
        limits: Limits,
    ) -> Result<Vec<u8>, Failure> {
        let opened = self.open(service, target, token).await?;
        (opened.success(limits.bytes).await).map_err(|error| self.failure(&error, limits))
    }

    /// What went wrong, without the token that a server may have said back.
    pub(super) fn failure(&self, error: &HttpError, limits: Limits) -> Failure {
        match error {
            HttpError::TooLarge(_) => Malformed::TooLarge(limits.bytes).into(),
            other => {
                let text = other.to_string();
                Failure::Unreadable(match &self.ready {
                    Some(service) => service.without_token(&text),
                    None => text,
                })
            }
        }
    }

    /// A failure whose text is short, and has no token in it that a server may have said back.
    pub(super) fn harmless(&self, failure: Failure) -> Failure {
        let text = failure.to_string();
        let mut shown = match &self.ready {
            Some(service) => service.without_token(&text),
            None => text.clone(),
        };
        if let Some((end, _)) = shown.char_indices().nth(MAX_TEXT) {
            shown.truncate(end);
            shown.push('…');
        }
        match failure {
            failure if shown == text => failure,
            Failure::Malformed(_) => Malformed::Document(shown).into(),
            Failure::Refused(_) => Failure::Refused(shown),
            Failure::Unreadable(_) | Failure::Silent(_) => Failure::Unreadable(shown),
        }
    }

    /// As the host asks now: both files may have changed since the last time.
    pub(super) async fn host_resolver(&self) -> Result<Resolver, Failure> {
        // a host without them has a name server of its own, and knows no names by itself
        let resolv_conf = self.reader.read(RESOLV_CONF.into()).await.unwrap_or_default();
        let hosts = self.reader.read(HOSTS.into()).await.unwrap_or_default();
        let made = spawn_blocking(move || Resolver::of_host(&resolv_conf, &hosts)).await;
        made.map_err(|_| internal())?.map_err(unresolved)
    }
}

/// A path of a service's API, below the one of its URL.
#[cfg(any(feature = "docker", feature = "kubernetes", feature = "lxd"))]
pub(super) fn below(service: &HttpService, path: &str) -> String {
    format!("{}{path}", service.url.target.trim_end_matches('/'))
}

/// Has an answer parsed beside the control loop, which may take a while.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn parsed<T: Send + 'static>(
    parse: impl FnOnce() -> Result<T, Malformed> + Send + 'static,
) -> Result<T, Failure> {
    Ok(spawn_blocking(parse).await.map_err(|_| internal())??)
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
pub(super) fn unresolved(error: ResolveError) -> Failure {
    Failure::Unreadable(error.to_string())
}

pub(super) fn internal() -> Failure {
    Failure::Unreadable("internal error while it was read".to_owned())
}
