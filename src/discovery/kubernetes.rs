//! How Kubernetes is asked: for the EndpointSlices of a service once, and then for what changes of them (a watch); or for the
//! nodes that its pods are on.

use std::{borrow::Cow, collections::HashMap, net::IpAddr, time::Duration};

use hyper::StatusCode;
use percent_encoding::utf8_percent_encode;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Answered, Failure,
    answer::{Limits, Slices, SlicesChange, SlicesEvent, kubernetes as read},
    caller::{Caller, below, parsed},
    lines::Lines,
    service::{PLAIN, TokenHeader},
};
use crate::{
    client::http::HttpError,
    config::{HttpService, KubernetesQuery, KubernetesVia, NAMESPACE_FILE, ServicePort},
};

/// How long a change is waited for before the answer is given again.
const WAIT: Duration = Duration::from_secs(60);

/// How long a watch lasts; a new one begins where it has ended, with the token as it is then.
const WATCH: Duration = Duration::from_secs(300);

/// How soon it is asked again: a service that changes without end is not asked without end.
const REST: Duration = Duration::from_secs(1);

/// Changes at hand that are taken before the answer is given.
const MOST_CHANGES: usize = 10_000;

/// What is known of a service.
pub(super) struct Watched {
    slices: Slices,
    /// What tells of changes, as long as it does.
    changes: Option<Lines>,
    /// Since when.
    opened: Instant,
}

/// Who is asked for what.
struct Api<'a> {
    service: Cow<'a, HttpService>,
    namespace: String,
    query: &'a KubernetesQuery,
    limits: Limits,
}

/// Asks for the servers of a service: at once, or when they may have changed.
pub(super) async fn ask(
    caller: &mut Caller,
    watched: &mut Option<Watched>,
    query: &KubernetesQuery,
    limits: Limits,
) -> Result<Answered, Failure> {
    let api = Api {
        service: service(query)?,
        namespace: namespace(caller, query).await?,
        query,
        limits,
    };
    let within = query.api.timeout;
    let silent = || Failure::Silent(within);
    if query.via == KubernetesVia::NodePort {
        let asked = timeout(within, api.by_nodes(caller)).await;
        return asked.unwrap_or_else(|_| Err(silent()));
    }
    if let Some(known) = watched
        && !api.follow(caller, known).await?
    {
        *watched = None;
    }
    let known = match watched {
        Some(known) => known,
        none => {
            let slices = timeout(within, api.list(caller)).await;
            none.insert(Watched {
                slices: slices.unwrap_or_else(|_| Err(silent()))?,
                changes: None,
                opened: Instant::now(),
            })
        }
    };
    let port = timeout(within, api.port_name(caller)).await;
    let port = port.unwrap_or_else(|_| Err(silent()))?;
    // they share what they have
    let (slices, family) = (known.slices.clone(), query.family);
    Ok(Answered {
        answer: parsed(move || slices.answer(&port, family, limits)).await?,
        ttl: Some(REST),
    })
}

impl Api<'_> {
    fn slices_target(&self, more: &str) -> String {
        let selector = encoded(&format!("kubernetes.io/service-name={}", self.query.service));
        let namespace = encoded(&self.namespace);
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={selector}{more}"
        );
        below(&self.service, &path)
    }

    async fn get(&self, caller: &mut Caller, target: &str) -> Result<Vec<u8>, Failure> {
        caller
            .body(&self.service, target, TokenHeader::Authorization, self.limits)
            .await
    }

    async fn list(&self, caller: &mut Caller) -> Result<Slices, Failure> {
        let bytes = self.get(caller, &self.slices_target("")).await?;
        parsed(move || Slices::parse(&bytes)).await
    }

    /// Waits for a change, and takes it; or for a while. False if what is known is too old for that.
    async fn follow(&self, caller: &mut Caller, known: &mut Watched) -> Result<bool, Failure> {
        // one that should have ended by itself has lost its other side
        if known.changes.is_none() || known.opened.elapsed() > WATCH + WAIT {
            known.changes = None;
            let opened = timeout(self.service.timeout, self.watch(caller, known)).await;
            let opened = opened.unwrap_or_else(|_| Err(Failure::Silent(self.service.timeout)))?;
            if !opened {
                return Ok(false);
            }
        }
        let Watched { slices, changes, .. } = known;
        let Some(lines) = changes else { return Ok(true) };
        let until = Instant::now() + WAIT;
        loop {
            match timeout_at(until, lines.next()).await {
                Err(_) => return Ok(true),
                Ok(Err(error @ HttpError::TooLarge(_))) => return Err(caller.failure(&error, self.limits)),
                // it is over, or cut off by who is in between, as it is from time to time
                Ok(Ok(None) | Err(_)) => {
                    *changes = None;
                    return Ok(true);
                }
                Ok(Ok(Some(line))) => match slices.apply(event(line).await?)? {
                    SlicesChange::Some => break,
                    SlicesChange::None => {}
                    SlicesChange::TooOld => return Ok(false),
                },
            }
        }
        let first = Instant::now();
        for _ in 0..MOST_CHANGES {
            match lines.at_hand(first).await {
                // what is wrong will be seen the next time
                Ok(None) | Err(_) => break,
                Ok(Some(line)) => {
                    if slices.apply(event(line).await?)? == SlicesChange::TooOld {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Begins to hear of changes; false if what is known is too old for that.
    async fn watch(&self, caller: &mut Caller, known: &mut Watched) -> Result<bool, Failure> {
        let target = self.slices_target(&format!(
            "&watch=1&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            WATCH.as_secs(),
            encoded(known.slices.version())
        ));
        let token = TokenHeader::Authorization;
        let opened = caller.open(&self.service, &target, token).await?;
        if opened.status == StatusCode::GONE {
            return Ok(false);
        }
        if !opened.status.is_success() {
            let error = opened.success(self.limits.bytes).await.err();
            return match error {
                Some(error) => Err(caller.failure(&error, self.limits)),
                None => Ok(false),
            };
        }
        known.changes = Some(Lines::new(opened, self.limits.bytes));
        known.opened = Instant::now();
        Ok(true)
    }

    /// What slices call the port.
    async fn port_name(&self, caller: &mut Caller) -> Result<String, Failure> {
        match &self.query.port {
            ServicePort::Name(name) => Ok(name.clone()),
            ServicePort::Number(number) => {
                let bytes = self.get(caller, &self.service_target()).await?;
                Ok(read::port_name(&bytes, *number)?)
            }
        }
    }

    fn service_target(&self) -> String {
        let (namespace, service) = (encoded(&self.namespace), encoded(&self.query.service));
        below(
            &self.service,
            &format!("/api/v1/namespaces/{namespace}/services/{service}"),
        )
    }

    /// As awe4lb does it: the service, its pods, the nodes that they are on.
    async fn by_nodes(&self, caller: &mut Caller) -> Result<Answered, Failure> {
        let bytes = self.get(caller, &self.service_target()).await?;
        let node_port = read::node_port(&bytes, &self.query.port)?;
        let (namespace, selector) = (encoded(&self.namespace), encoded(&node_port.selector));
        let pods = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}");
        let bytes = self.get(caller, &below(&self.service, &pods)).await?;
        let names = parsed(move || read::nodes(&bytes)).await?;
        let mut nodes: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for name in names.into_iter().take(self.limits.servers.saturating_add(1)) {
            let target = below(&self.service, &format!("/api/v1/nodes/{}", encoded(&name)));
            let bytes = self.get(caller, &target).await?;
            nodes.insert(name, read::node_addresses(&bytes)?);
        }
        Ok(Answered {
            answer: read::of_nodes(&nodes, node_port.port, self.query.family, self.limits)?,
            ttl: None,
        })
    }
}

/// What a line of a watch says: that may be thousands of endpoints.
async fn event(line: Vec<u8>) -> Result<SlicesEvent, Failure> {
    parsed(move || SlicesEvent::parse(&line)).await
}

/// The API of the cluster: as the environment of the pod says where it is, if nothing else does.
fn service(query: &KubernetesQuery) -> Result<Cow<'_, HttpService>, Failure> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (true, Some(host), Some(port)) = (
        query.in_cluster,
        variable("KUBERNETES_SERVICE_HOST"),
        variable("KUBERNETES_SERVICE_PORT"),
    ) else {
        return Ok(Cow::Borrowed(&query.api));
    };
    let wrong = || {
        Failure::Unreadable(
            "the environment has no address and port in KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT"
                .to_owned(),
        )
    };
    let mut service = query.api.clone();
    service.url.host = host.parse().map_err(|_| wrong())?;
    service.url.port = port.parse().map_err(|_| wrong())?;
    Ok(Cow::Owned(service))
}

/// The namespace: that of the pod, if nothing says which.
async fn namespace(caller: &Caller, query: &KubernetesQuery) -> Result<String, Failure> {
    if let Some(namespace) = &query.namespace {
        return Ok(namespace.clone());
    }
    let bytes = caller.reader().read(NAMESPACE_FILE.into()).await;
    let bytes = bytes.map_err(|why| Failure::Unreadable(format!("namespace: {why}")))?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    match text.trim() {
        "" => Err(Failure::Unreadable(format!(
            "namespace: {NAMESPACE_FILE} names none"
        ))),
        text => Ok(text.to_owned()),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[tokio::test]
    async fn a_line_of_thousands_of_endpoints_is_read_beside_the_control_loop() {
        let endpoints = vec![r#"{"addresses": ["10.0.0.1"]}"#; 6_000].join(",");
        let line = format!(
            r#"{{"type": "ADDED", "object": {{"metadata": {{"name": "web"}}, "addressType": "IPv4", "endpoints": [{endpoints}]}}}}"#
        );
        let turns = Arc::new(AtomicUsize::new(0));
        let others = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        let event = event(line.into_bytes()).await.unwrap();
        assert!(turns.load(Relaxed) > 0, "nothing else had a turn meanwhile");
        others.abort();
        assert_eq!(Slices::default().apply(event), Ok(SlicesChange::Some));
    }
}
