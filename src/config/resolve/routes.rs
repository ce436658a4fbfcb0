//! Routes that no connection can take: those after one that takes all, names that an earlier route takes, and addresses that
//! are not listened on.

use std::collections::HashMap;

use crate::{
    base::ListenRange,
    config::{
        findings::Findings,
        model::{Config, Frontend},
        raw,
        routing::{Destination, Route},
    },
};

/// Most pairs of a destination and a listen address that are compared for one frontend: with more, nobody is warned.
const MOST_COMPARED: usize = 1 << 20;

/// Longest host name (RFC 1035, section 2.3.4): longer patterns are not looked at.
const MAX_HOST_BYTES: usize = 253;

/// Warns of routes that no connection can take, where that is certain. What makes them different may stand in what could not
/// be read, so this waits for a file without errors.
pub fn check(file: &raw::File, config: &Config, findings: &mut Findings) {
    if !findings.is_clean() {
        return;
    }
    for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
        let (Some(frontend), Some(routes)) = (config.frontends.get(name.as_str()), &at.value.routes) else {
            continue;
        };
        findings.within_all(&["frontends", name, "routes"], |findings| {
            hidden(&frontend.routing.routes, &routes.value.0, findings);
            never_listened_on(frontend, &routes.value.0, findings);
        });
    }
}

fn hidden(routes: &[Route], raw: &[raw::Located<raw::Route>], findings: &mut Findings) {
    let mut earlier: HashMap<String, Taken<'_>> = HashMap::new();
    for (index, (route, at)) in routes.iter().zip(raw).enumerate() {
        let own = conditions(route);
        // those that ask for nothing but a name, and those that ask for the same besides
        let takers: Vec<&Taken<'_>> = ["", own.as_str()]
            .iter()
            .filter_map(|key| earlier.get(*key))
            .collect();
        if let Some(first) = takers.iter().filter_map(|taken| taken.all).min() {
            let message = format!(
                "no connection reaches route {}: route {} matches all of them first",
                index + 1,
                first + 1
            );
            findings.within(&index.to_string(), |findings| {
                findings.warn(
                    at.span.clone(),
                    message,
                    "put it before that one, or remove it".to_owned(),
                );
            });
            if takers.iter().any(|taken| taken.is_everything) {
                // so is each that follows
                return;
            }
            continue;
        }
        for (pattern, span) in at.value.sni.iter().flat_map(|at| &at.value.0) {
            let text = pattern.as_str();
            let Some(first) = takers.iter().filter_map(|taken| taken.name(text)).min() else {
                continue;
            };
            findings.within_all(&[&index.to_string(), "sni"], |findings| {
                findings.warn(
                    span.clone(),
                    format!(
                        "\"{text}\" never reaches route {}: route {} matches it first",
                        index + 1,
                        first + 1
                    ),
                    "put this route before that one, or remove the name here".to_owned(),
                );
            });
        }
        earlier.entry(own).or_default().add(index, route);
    }
}

/// What a route asks for besides a name, as text; empty if nothing.
fn conditions(route: &Route) -> String {
    let Route {
        sni: _,
        alpn,
        source,
        destination,
        target: _,
    } = route;
    if alpn.is_empty() && source.is_empty() && destination.is_empty() {
        return String::new();
    }
    format!("{alpn:?}{source:?}{destination:?}")
}

/// What routes with the same conditions take, and which of them is the first to do so.
#[derive(Default)]
struct Taken<'a> {
    /// The one that takes every name, and none.
    all: Option<usize>,
    /// Whether that one asks for nothing else.
    is_everything: bool,
    /// By the text of a pattern.
    patterns: HashMap<&'a str, usize>,
    /// By what follows the star, with its dot.
    suffixes: HashMap<&'a str, usize>,
    /// By what precedes the star, with its dot.
    prefixes: HashMap<&'a str, usize>,
}

impl<'a> Taken<'a> {
    fn add(&mut self, index: usize, route: &'a Route) {
        if route.sni.is_empty() {
            self.all.get_or_insert(index);
            self.is_everything |= route.is_for_all();
        }
        for pattern in &route.sni {
            let text = pattern.as_str();
            self.patterns.entry(text).or_insert(index);
            if text.starts_with('~') {
                continue;
            }
            if let Some(suffix) = text.strip_prefix('*') {
                self.suffixes.entry(suffix).or_insert(index);
            } else if let Some(prefix) = text.strip_suffix('*') {
                self.prefixes.entry(prefix).or_insert(index);
            }
        }
    }

    /// The route that takes all names that a pattern means.
    fn name(&self, pattern: &str) -> Option<usize> {
        let same = self.patterns.get(pattern);
        if pattern.starts_with('~') || pattern.len() > MAX_HOST_BYTES {
            return same.copied();
        }
        let dots = || pattern.match_indices('.').map(|(place, _)| place);
        // with something besides, as the patterns ask; of a star's own part nothing is known
        let below = dots()
            .filter(|place| *place > 0 && !pattern.ends_with('*'))
            .filter_map(|place| self.suffixes.get(pattern.get(place..)?));
        let beginning = dots()
            .filter(|place| place + 1 < pattern.len() && !pattern.starts_with('*'))
            .filter_map(|place| self.prefixes.get(pattern.get(..=place)?));
        same.into_iter().chain(below).chain(beginning).min().copied()
    }
}

/// Destinations that the frontend does not listen on. After a PROXY header it may be another's address.
fn never_listened_on(frontend: &Frontend, raw: &[raw::Located<raw::Route>], findings: &mut Findings) {
    let destinations = frontend
        .routing
        .routes
        .iter()
        .map(|route| route.destination.len());
    let compared = destinations.sum::<usize>().saturating_mul(frontend.listen.len());
    if frontend.proxy_protocol.is_some() || compared > MOST_COMPARED {
        return;
    }
    for (index, at) in raw.iter().enumerate() {
        for (destination, span) in at.value.destination.iter().flat_map(|at| &at.value.0) {
            if frontend.listen.iter().any(|range| may_be_at(destination, *range)) {
                continue;
            }
            findings.within_all(&[&index.to_string(), "destination"], |findings| {
                findings.warn(
                    span.clone(),
                    format!(
                        "frontend `{}` does not listen on {destination}: no connection matches",
                        frontend.name
                    ),
                    "write an address or port of its listen_addr, or remove it".to_owned(),
                );
            });
        }
    }
}

/// Whether a connection to what is listened on may have come to a destination.
fn may_be_at(destination: &Destination, listen: ListenRange) -> bool {
    let ports = listen.ports();
    let has_port = destination
        .ports
        .as_ref()
        .is_none_or(|wanted| *wanted.start() <= ports.last && ports.first <= *wanted.end());
    let ip = listen.ip();
    let has_address = destination
        .network
        .is_none_or(|network| match ip.is_unspecified() {
            // `[::]` takes IPv4, too
            true => ip.is_ipv6() || network.first().is_ipv4(),
            false => network.has(ip),
        });
    has_port && has_address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::routing::RouteTarget;

    fn route(sni: &[&str]) -> Route {
        Route {
            sni: sni.iter().map(|text| text.parse().unwrap()).collect(),
            alpn: Vec::new(),
            source: Vec::new(),
            destination: Vec::new(),
            target: RouteTarget::Reject,
        }
    }

    #[test]
    fn a_pattern_takes_the_names_that_it_means_and_no_others() {
        let takes = |taker: &str, pattern: &str| {
            let route = route(&[taker]);
            let mut taken = Taken::default();
            taken.add(0, &route);
            taken.name(pattern).is_some()
        };
        for (taker, pattern) in [
            ("www.example.com", "www.example.com"),
            ("*.example.com", "www.example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", "*.b.example.com"),
            ("*.example.com", "*.example.com"),
            ("www.*", "www.example.com"),
            ("www.*", "www.example.*"),
            ("~^www", "~^www"),
        ] {
            assert!(takes(taker, pattern), "{taker} {pattern}");
        }
        for (taker, pattern) in [
            ("*.example.com", "example.com"),
            ("*.b.example.com", "*.example.com"),
            ("*.example.com", "*.com"),
            ("www.*", "*.www.example.com"),
            ("*.example.com", "www.example.*"),
            ("www.example.*", "www.*"),
            ("www.example.com", "*.example.com"),
            ("~^www", "www.example.com"),
            ("www.*", "www"),
        ] {
            assert!(!takes(taker, pattern), "{taker} {pattern}");
        }
    }
}
