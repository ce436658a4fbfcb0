//! The routes of a frontend, compiled: where a connection goes by what is known of it.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use super::{BackendView, FrontendView, Offered, Snapshot};
use crate::{
    access::{NetworkLists, Subjects},
    base::{BackendName, ClientAddr, HostPattern, ListenAddr, Remote, TerminationReason},
    config::{Destination, NonTls, Route, RouteTarget, Routing, UnexpectedSni, Unrouted},
    preamble::Alpn,
};

/// What is known of a connection when it is routed.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its client: one without an address is in no network.
    pub client: Remote<ClientAddr>,
    /// The address that it connected to; `None` of a unix socket.
    pub destination: Option<ListenAddr>,
    /// What its ClientHello says.
    pub hello: Hello<'a>,
}

/// What a ClientHello says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello<'a> {
    /// It was not read: nothing depended on it.
    Unread,
    /// There is none: the connection speaks no TLS.
    NotTls,
    /// It asks for this name and offers these protocols.
    Read {
        /// In lower case; `None` if it names no host.
        sni: Option<&'a str>,
        /// The protocols.
        alpn: &'a Alpn,
    },
}

/// Where a connection goes.
#[derive(Debug, Clone)]
pub struct Way {
    /// The backend.
    pub backend: Arc<BackendView>,
    /// Which of its servers.
    pub offered: Offered,
    /// The route that has decided, counted from 1 in the order of the file; `None`: no route has.
    pub route: Option<NonZeroU32>,
}

/// Routes that were made ready to be asked.
#[derive(Debug)]
pub struct Routes {
    routes: Vec<Compiled>,
    /// Routes by the names that they name in full.
    by_name: HashMap<Box<str>, Vec<usize>>,
    /// Routes by the domains, with the dot before them, below which they name every host.
    by_domain: HashMap<Box<str>, Vec<usize>>,
    /// Those that must be looked at whatever the name.
    others: Vec<usize>,
    needs_hello: bool,
}

#[derive(Debug)]
struct Compiled {
    sni: Vec<HostPattern>,
    alpn: Vec<Box<str>>,
    source: Option<Subjects>,
    destination: Vec<Destination>,
    /// Index of the backend among the frontend's targets; `None`: it is rejected.
    target: Option<usize>,
}

impl Hello<'_> {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Read { sni, .. } => *sni,
            Self::Unread | Self::NotTls => None,
        }
    }

    fn offers(&self, wanted: &[Box<str>]) -> bool {
        let Self::Read { alpn, .. } = self else {
            return false;
        };
        wanted.iter().any(|wanted| alpn.offers(wanted.as_bytes()))
    }
}

impl Routes {
    /// Makes the routes of a frontend ready. `target` is the index of a backend among the frontend's; `None` if it has no
    /// routes.
    #[must_use]
    pub fn new(
        routing: &Routing,
        lists: &NetworkLists,
        target: impl Fn(&BackendName) -> Option<usize>,
    ) -> Option<Self> {
        if routing.routes.is_empty() {
            return None;
        }
        let mut routes = Self {
            routes: Vec::with_capacity(routing.routes.len()),
            by_name: HashMap::new(),
            by_domain: HashMap::new(),
            others: Vec::new(),
            needs_hello: routing.routes.iter().any(Route::needs_hello),
        };
        for (index, route) in routing.routes.iter().enumerate() {
            routes.enter(index, &route.sni);
            routes.routes.push(Compiled::new(route, lists, &target));
        }
        Some(routes)
    }

    /// Whether it depends on the ClientHello where a connection of a frontend with these routes, if it has any, and these
    /// backends goes.
    #[must_use]
    pub fn need_hello(routes: Option<&Self>, routing: &Routing, targets: &[Arc<BackendView>]) -> bool {
        routes.is_some_and(|routes| routes.needs_hello)
            || targets.iter().any(|backend| backend.has_names())
            || routing.unexpected_sni == UnexpectedSni::Reject
    }

    fn enter(&mut self, index: usize, sni: &[HostPattern]) {
        let is_indexed = |pattern: &HostPattern| pattern.exact().is_some() || pattern.domain().is_some();
        if sni.is_empty() || !sni.iter().all(is_indexed) {
            self.others.push(index);
            return;
        }
        for pattern in sni {
            if let Some(name) = pattern.exact() {
                self.by_name.entry(name.into()).or_default().push(index);
            } else if let Some(domain) = pattern.domain() {
                self.by_domain.entry(domain.into()).or_default().push(index);
            }
        }
    }

    /// The first that matches, by its index.
    fn first(&self, facts: &Facts<'_>) -> Option<usize> {
        let named = facts.hello.name().into_iter().flat_map(|name| {
            let dots = name.match_indices('.').filter(|(at, _)| *at > 0);
            let domains = dots.filter_map(|(at, _)| self.by_domain.get(&name[at..]));
            self.by_name.get(name).into_iter().chain(domains)
        });
        let matching = |list: &Vec<usize>| {
            list.iter()
                .copied()
                .find(|index| self.routes[*index].matches(facts))
        };
        named.chain([&self.others]).filter_map(matching).min()
    }
}

impl Compiled {
    fn new(route: &Route, lists: &NetworkLists, target: impl Fn(&BackendName) -> Option<usize>) -> Self {
        let list = |name: &_| lists.get(name).map(Arc::clone);
        Self {
            sni: route.sni.clone(),
            alpn: route.alpn.clone(),
            source: (!route.source.is_empty()).then(|| Subjects::new(&route.source, list)),
            destination: route.destination.clone(),
            target: match &route.target {
                RouteTarget::Backend(name) => target(name),
                RouteTarget::Reject => None,
            },
        }
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        let names = |name: &str| self.sni.iter().any(|pattern| pattern.matches(name));
        let leads_from = |at: &Destination| facts.destination.is_some_and(|addr| at.has(addr.0));
        let comes_from = |source: &Subjects| facts.client.ip().is_some_and(|ip| source.has(ip));
        (self.sni.is_empty() || facts.hello.name().is_some_and(names))
            && (self.alpn.is_empty() || facts.hello.offers(&self.alpn))
            && self.source.as_ref().is_none_or(comes_from)
            && (self.destination.is_empty() || self.destination.iter().any(leads_from))
    }
}

impl Snapshot {
    /// Whether a backend, or the first `fallback` of it that can, has an eligible server.
    #[must_use]
    pub fn has_server(&self, backend: &BackendView) -> bool {
        let fallback = |backend: &&BackendView| {
            let name = backend.config.fallback.as_ref()?;
            self.backends.get(name).map(Arc::as_ref)
        };
        std::iter::successors(Some(backend), fallback)
            .take(self.backends.len())
            .any(|backend| backend.counts.eligible > 0)
    }

    /// The way of a connection of a frontend, or the one to the first `fallback` that has an eligible server if it leads to a
    /// backend that has none.
    #[must_use]
    pub fn with_fallback(&self, frontend: &FrontendView, mut way: Way, facts: &Facts<'_>) -> Way {
        // a configuration has no circle of them; so this ends even if there were one
        for _ in 0..self.backends.len() {
            if way.backend.eligible(way.offered) > 0 {
                break;
            }
            let fallback = way.backend.config.fallback.as_ref();
            let Some(fallback) = fallback.and_then(|name| self.backends.get(name)) else {
                break;
            };
            way.offered = frontend.offered_by(fallback, facts.hello);
            way.backend = Arc::clone(fallback);
        }
        way
    }
}

impl FrontendView {
    /// Where a connection goes.
    ///
    /// # Errors
    /// Why it is to be reset.
    pub fn way(&self, facts: &Facts<'_>) -> Result<Way, TerminationReason> {
        let routing = &self.config.routing;
        if facts.hello == Hello::NotTls && routing.non_tls == NonTls::Reject {
            return Err(TerminationReason::NonTls);
        }
        let found = (self.routes.as_ref()).and_then(|routes| Some((routes, routes.first(facts)?)));
        let backend = match found {
            Some((routes, index)) => routes.routes[index]
                .target
                .and_then(|target| self.targets.get(target)),
            None => (routing.unrouted == Unrouted::Backend).then_some(&self.backend),
        };
        let backend = backend.ok_or(TerminationReason::RouteRejected)?;
        let route = found.and_then(|(_, index)| number(index));
        Ok(Way {
            offered: self.offered(backend, route.is_some(), facts.hello)?,
            backend: Arc::clone(backend),
            route,
        })
    }

    /// The route that decides, counted from 1 in the order of the file, also where it rejects; `None`: no route does.
    #[must_use]
    pub fn deciding_route(&self, facts: &Facts<'_>) -> Option<NonZeroU32> {
        number(self.routes.as_ref()?.first(facts)?)
    }

    /// Which servers of a fallback a connection may get: it is not refused there for its name.
    fn offered_by(&self, backend: &BackendView, hello: Hello<'_>) -> Offered {
        let found = self.offered(backend, true, hello).ok();
        found.or_else(|| backend.unnamed()).unwrap_or_default()
    }

    /// Which servers of the backend a connection may get.
    fn offered(
        &self,
        backend: &BackendView,
        is_routed: bool,
        hello: Hello<'_>,
    ) -> Result<Offered, TerminationReason> {
        let unnamed = || backend.unnamed();
        let Hello::Read { sni, .. } = hello else {
            // what names no host because it cannot goes where nothing else is said
            return Ok(unnamed().unwrap_or_default());
        };
        if let Some(class) = sni.and_then(|name| backend.class_of(name)) {
            return Ok(class);
        }
        match self.config.routing.unexpected_sni {
            UnexpectedSni::Any => Ok(Offered::All),
            _ if is_routed && !backend.has_names() => Ok(Offered::All),
            UnexpectedSni::Reject => Err(TerminationReason::UnexpectedSni),
            UnexpectedSni::Default if !backend.has_names() => Ok(Offered::All),
            UnexpectedSni::Default => unnamed().ok_or(TerminationReason::UnexpectedSni),
        }
    }
}

/// The number of a route by its index.
fn number(index: usize) -> Option<NonZeroU32> {
    // no file has room for so many
    u32::try_from(index + 1).ok().and_then(NonZeroU32::new)
}
