//! Where connections go by what is known of them.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Instant,
};

use crate::{
    access::RuleSubject,
    base::{BackendName, HostPattern, ListenAddr, Remote, ServerKey, ServerName, TerminationReason},
    config::{Config, Destination, NonTls, Route, RouteTarget, Routing, UnexpectedSni, Unrouted},
    pools::{AdminState, Override, Pools},
    preamble::Alpn,
    snapshot::{
        Builder, Facts, FrontendView, Hello, Snapshot,
        testing::{backend_mut, config, frontend_mut},
    },
};

/// A frontend `a` with these routes to backends `web` (one and two, its own), `api` and `sorry`, each of which has the same
/// two servers.
fn site(routes: Vec<Route>, change: impl FnOnce(&mut Config)) -> Arc<Snapshot> {
    let mut config = config(&[("one", 1, 1), ("two", 1, 1)]);
    for name in ["api", "sorry"] {
        let name = BackendName::new(name).unwrap();
        let mut backend = (*config.backends["web"]).clone();
        backend.name = name.clone();
        config.backends.insert(name, Arc::new(backend));
    }
    frontend_mut(&mut config, "a").routing.routes = routes;
    change(&mut config);
    build(&config, &Pools::of(&config))
}

fn build(config: &Config, pools: &Pools) -> Arc<Snapshot> {
    let mut builder = Builder::new(1, Arc::default());
    builder.config_changed(config, config.backends.keys().cloned());
    builder.build(config, pools, Instant::now()).snapshot
}

fn route(sni: &[&str], target: &str) -> Route {
    Route {
        sni: patterns(sni),
        alpn: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
        target: match target {
            "reject" => RouteTarget::Reject,
            name => RouteTarget::Backend(BackendName::new(name).unwrap()),
        },
    }
}

fn patterns(sni: &[&str]) -> Vec<HostPattern> {
    sni.iter().map(|pattern| pattern.parse().unwrap()).collect()
}

fn routing(config: &mut Config) -> &mut Routing {
    &mut frontend_mut(config, "a").routing
}

fn serves(config: &mut Config, server: &str, sni: &[&str]) {
    backend_mut(config).servers.get_mut(server).unwrap().sni = patterns(sni);
}

struct Asked<'a> {
    snapshot: &'a Snapshot,
    client: &'a str,
    destination: &'a str,
}

impl<'a> Asked<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            client: "192.0.2.1:40000",
            destination: "10.0.0.1:443",
        }
    }

    fn frontend(&self) -> &FrontendView {
        &self.snapshot.frontends["a"]
    }

    /// The backend, and the servers that can be chosen.
    fn says(&self, hello: Hello<'_>) -> Result<(String, Vec<String>), TerminationReason> {
        let facts = Facts {
            client: self.client.parse::<SocketAddr>().unwrap().into(),
            destination: Some(ListenAddr::new(self.destination.parse().unwrap())),
            hello,
        };
        let way = self.frontend().way(&facts)?;
        let way = self.snapshot.with_fallback(self.frontend(), way, &facts);
        let (balancer, ..) = way.backend.chooser(way.offered);
        let chosen = balancer
            .candidates()
            .iter()
            .filter(|candidate| candidate.weight > 0);
        let chosen: Vec<_> = chosen.map(|candidate| candidate.name.to_string()).collect();
        assert_eq!(
            chosen.len(),
            way.backend.eligible(way.offered),
            "counted as eligible"
        );
        Ok((way.backend.config.name.to_string(), chosen))
    }

    fn name(&self, sni: &str) -> Result<String, TerminationReason> {
        self.says(hello(sni)).map(|(backend, _)| backend)
    }
}

fn hello(sni: &str) -> Hello<'_> {
    static NONE: LazyLock<Alpn> = LazyLock::new(Alpn::default);
    Hello::Read {
        sni: (!sni.is_empty()).then_some(sni),
        alpn: &NONE,
    }
}

#[test]
fn the_first_route_that_matches_decides_and_then_the_backend() {
    let routes = vec![
        route(&["*.example.com"], "api"),
        route(&["www.example.com", "example.org"], "sorry"),
        route(&[r"~^db\d+\."], "sorry"),
        route(&["mail.*"], "reject"),
    ];
    let site = site(routes, |_| ());
    let asked = Asked::of(&site);
    assert!(asked.frontend().needs_hello);
    assert_eq!(asked.name("www.example.com"), Ok("api".into()), "it comes first");
    assert_eq!(asked.name("example.org"), Ok("sorry".into()));
    assert_eq!(asked.name("db7.example.net"), Ok("sorry".into()));
    assert_eq!(asked.name("db7.example.com"), Ok("api".into()));
    assert_eq!(
        asked.name("mail.example.net"),
        Err(TerminationReason::RouteRejected)
    );
    for other in ["example.com", "www.example.org", ""] {
        assert_eq!(asked.name(other), Ok("web".into()), "{other}");
    }
}

#[test]
fn everything_that_a_route_names_must_fit() {
    let both = Route {
        alpn: vec!["h2".into(), "h3".into()],
        ..route(&["a.example"], "api")
    };
    let from = Route {
        source: vec![RuleSubject::Network("198.51.100.0/24".parse().unwrap())],
        ..route(&[], "sorry")
    };
    let to = Route {
        destination: vec![Destination {
            network: Some("10.0.0.2".parse().unwrap()),
            ports: Some(8_000..=8_010),
        }],
        ..route(&[], "api")
    };
    let site = site(vec![both, from, to], |_| ());
    let asked = Asked::of(&site);
    let offers = |alpn: &[&str]| {
        let alpn: Alpn = alpn.iter().copied().collect();
        let hello = Hello::Read {
            sni: Some("a.example"),
            alpn: &alpn,
        };
        asked.says(hello).unwrap().0
    };
    assert_eq!(offers(&["http/1.1", "h2"]), "api");
    assert_eq!(offers(&["http/1.1"]), "web");
    assert_eq!(offers(&[]), "web");
    let other = Asked {
        client: "198.51.100.9:1",
        ..Asked::of(&site)
    };
    assert_eq!(other.name("b.example"), Ok("sorry".into()));
    let at = |destination: &str| {
        let asked = Asked {
            destination,
            ..Asked::of(&site)
        };
        asked.name("b.example").unwrap()
    };
    assert_eq!(at("10.0.0.2:8010"), "api");
    assert_eq!(
        (at("10.0.0.2:8011"), at("10.0.0.3:8010")),
        ("web".into(), "web".into())
    );
}

#[test]
fn whoever_has_no_address_is_in_no_network_and_goes_by_its_name_alone() {
    let by = |network: &str| Route {
        source: vec![RuleSubject::Network(network.parse().unwrap())],
        ..route(&[], "sorry")
    };
    let to = Route {
        destination: vec![Destination {
            network: None,
            ports: Some(1..=65_535),
        }],
        ..route(&[], "sorry")
    };
    let site = site(
        vec![by("0.0.0.0/0"), by("::/0"), to, route(&["a.example"], "api")],
        |_| (),
    );
    let frontend = &site.frontends["a"];
    let goes = |hello| {
        let facts = Facts {
            client: Remote::Unix,
            destination: None,
            hello,
        };
        frontend.way(&facts).unwrap().backend.config.name.to_string()
    };
    assert_eq!(
        (goes(hello("a.example")), goes(hello("b.example"))),
        ("api".into(), "web".into())
    );
}

#[test]
fn without_anything_that_needs_it_no_hello_is_waited_for() {
    let by_source = Route {
        source: vec![RuleSubject::Network("10.0.0.0/8".parse().unwrap())],
        ..route(&[], "api")
    };
    let plain = site(vec![by_source], |_| ());
    assert!(!plain.frontends["a"].needs_hello);
    let asked = Asked::of(&plain);
    assert_eq!(asked.says(Hello::Unread).unwrap().0, "web");
    let named = site(Vec::new(), |config| serves(config, "one", &["a.example"]));
    assert!(
        named.frontends["a"].needs_hello,
        "its servers differ in the names that they serve"
    );
}

#[test]
fn a_frontend_without_a_backend_rejects_what_no_route_matches() {
    let site = site(vec![route(&["a.example"], "api")], |config| {
        routing(config).unrouted = Unrouted::Reject;
    });
    let asked = Asked::of(&site);
    assert_eq!(asked.name("a.example"), Ok("api".into()));
    assert_eq!(asked.name("b.example"), Err(TerminationReason::RouteRejected));
}

#[test]
fn what_is_no_tls_is_rejected_or_goes_where_no_name_goes() {
    let routes = || vec![route(&["a.example"], "api")];
    let rejecting = site(routes(), |_| ());
    assert_eq!(
        Asked::of(&rejecting).says(Hello::NotTls),
        Err(TerminationReason::NonTls)
    );
    let passing = site(routes(), |config| {
        routing(config).non_tls = NonTls::Backend;
        routing(config).unexpected_sni = UnexpectedSni::Reject;
        serves(config, "one", &["b.example"]);
    });
    let found = Asked::of(&passing).says(Hello::NotTls).unwrap();
    assert_eq!(
        found,
        ("web".into(), vec!["two".into()]),
        "to servers without a name"
    );
}

#[test]
fn an_unexpected_name_is_refused_where_that_is_wanted() {
    let site = site(vec![route(&["a.example"], "api")], |config| {
        routing(config).unexpected_sni = UnexpectedSni::Reject;
        serves(config, "one", &["c.example"]);
    });
    let asked = Asked::of(&site);
    assert_eq!(asked.name("a.example"), Ok("api".into()));
    assert_eq!(asked.says(hello("c.example")).unwrap().1, ["one"]);
    for unexpected in ["b.example", ""] {
        assert_eq!(asked.name(unexpected), Err(TerminationReason::UnexpectedSni));
    }
}

#[test]
fn a_name_goes_to_the_servers_that_name_it_most_exactly() {
    let site = |unexpected| {
        site(Vec::new(), |config| {
            let mut third = backend_mut(config).servers["one"].clone();
            third.name = ServerName::new("three").unwrap();
            backend_mut(config).servers.insert(third.name.clone(), third);
            serves(config, "one", &["*.example.com", "example.org"]);
            serves(config, "two", &["www.example.com"]);
            routing(config).unexpected_sni = unexpected;
        })
    };
    let servers = |unexpected, name: &str| Asked::of(&site(unexpected)).says(hello(name)).unwrap().1;
    for unexpected in [UnexpectedSni::Default, UnexpectedSni::Any, UnexpectedSni::Reject] {
        assert_eq!(servers(unexpected, "www.example.com"), ["two"]);
        assert_eq!(servers(unexpected, "api.example.com"), ["one"]);
        assert_eq!(servers(unexpected, "example.org"), ["one"]);
    }
    for unexpected in ["www.example.net", ""] {
        assert_eq!(servers(UnexpectedSni::Default, unexpected), ["three"]);
        assert_eq!(servers(UnexpectedSni::Any, unexpected), ["one", "three", "two"]);
    }
}

#[test]
fn priority_groups_count_among_the_servers_of_one_name() {
    let site = site(Vec::new(), |config| {
        serves(config, "one", &["a.example"]);
        serves(config, "two", &["b.example"]);
        backend_mut(config).servers.get_mut("two").unwrap().priority = 2;
    });
    let asked = Asked::of(&site);
    assert_eq!(
        asked.says(hello("b.example")).unwrap().1,
        ["two"],
        "nobody else serves it"
    );
    assert_eq!(
        asked.name("c.example"),
        Err(TerminationReason::UnexpectedSni),
        "nobody is left for it"
    );
}

#[test]
fn a_backend_without_an_eligible_server_has_its_fallback_serve() {
    let none = |config: &mut Config, name: &str| {
        let backend = Arc::make_mut(config.backends.get_mut(name).unwrap());
        for server in backend.servers.values_mut() {
            server.weight = 0;
        }
    };
    let leads = |config: &mut Config, from: &str, to: &str| {
        Arc::make_mut(config.backends.get_mut(from).unwrap()).fallback = BackendName::new(to).ok();
    };
    let one = site(Vec::new(), |config| leads(config, "web", "sorry"));
    assert_eq!(Asked::of(&one).says(Hello::Unread).unwrap().0, "web");
    let two = site(Vec::new(), |config| {
        none(config, "web");
        leads(config, "web", "api");
        none(config, "api");
        leads(config, "api", "sorry");
    });
    assert_eq!(
        Asked::of(&two).says(Hello::Unread).unwrap().0,
        "sorry",
        "the next that can"
    );
    let three = site(Vec::new(), |config| {
        none(config, "web");
        leads(config, "web", "api");
        none(config, "api");
        leads(config, "api", "web");
    });
    let (_, servers) = Asked::of(&three).says(Hello::Unread).unwrap();
    assert!(servers.is_empty(), "it ends");
}

#[test]
fn a_backend_that_only_a_route_names_is_followed() {
    let mut config = config(&[("one", 1, 1)]);
    let api = BackendName::new("api").unwrap();
    let mut backend = (*config.backends["web"]).clone();
    backend.name = api.clone();
    config.backends.insert(api.clone(), Arc::new(backend));
    frontend_mut(&mut config, "a").routing.routes = vec![route(&["a.example"], "api")];
    let mut pools = Pools::of(&config);
    let mut builder = Builder::new(1, Arc::default());
    builder.config_changed(&config, config.backends.keys().cloned());
    let first = builder.build(&config, &pools, Instant::now()).snapshot;
    assert_eq!(Asked::of(&first).says(hello("a.example")).unwrap().1, ["one"]);

    let key = ServerKey {
        backend: api.clone(),
        server: ServerName::new("one").unwrap(),
    };
    let drained = Override {
        admin: Some(AdminState::Draining),
        weight: None,
    };
    assert!(pools.set_override(&key, drained));
    builder.pool_changed(&api);
    let built = builder.build(&config, &pools, Instant::now());
    assert!(
        Asked::of(&built.snapshot)
            .says(hello("a.example"))
            .unwrap()
            .1
            .is_empty()
    );
    let names: BTreeSet<String> = (built.frontends.iter())
        .filter_map(|replaced| replaced.after.as_ref())
        .map(|view| view.config.name.to_string())
        .collect();
    assert_eq!(names, ["a".to_owned()].into(), "b has nothing to do with it");
}
