//! Sessions that go on: over rotations, restarts and load balancers, and where they must not.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, ServerConfig, client::Resumption, version::TLS12};

use super::lab::*;
use crate::tls::*;

const HOUR: Duration = Duration::from_secs(3600);

struct Site {
    ca: Ca,
    store: Arc<CertificateStore>,
    settings: ServerSettings,
}

fn site() -> Site {
    let ca = Ca::new("ca");
    let store = store(&[&ca.issue(Key::P256, &["a.test"]).pair()]);
    let settings = ServerSettings::new("web");
    Site { ca, store, settings }
}

impl Site {
    fn frontend(&self, settings: &ServerSettings, shared: &Shared) -> Arc<ServerConfig> {
        server_config(settings, &self.store, shared).unwrap()
    }

    /// Clients of both versions, each with sessions of its own.
    fn clients(&self) -> [Arc<ClientConfig>; 2] {
        VERSIONS.map(|version| Client::of(&self.ca).version(version).arc())
    }
}

/// Connects and says whether a session went on.
fn resumes(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> bool {
    connect(client, server, "a.test").unwrap().session().resumed
}

#[test]
fn a_session_goes_on_at_the_next_connection() {
    let site = site();
    let server = site.frontend(&site.settings, &process(&keys(1)));
    for client in site.clients() {
        assert!(!resumes(&client, &server));
        assert!(resumes(&client, &server));
        assert!(resumes(&client, &server));
    }
}

#[test]
fn a_session_outlives_the_process_and_goes_on_at_another_load_balancer_with_the_same_keys() {
    let site = site();
    for client in site.clients() {
        let saved = keys(1).to_state();
        assert!(!resumes(
            &client,
            &site.frontend(&site.settings, &process(&keys(1)))
        ));
        let restored = TicketKeys::from_state(&saved, clock()).unwrap().unwrap();
        assert!(resumes(
            &client,
            &site.frontend(&site.settings, &process(&restored))
        ));
        let stranger = site.frontend(&site.settings, &process(&keys(2)));
        assert!(!resumes(&client, &stranger), "it has other keys");
    }
}

#[test]
fn a_session_goes_on_after_a_rotation_and_ends_after_its_lifetime() {
    let site = site();
    for client in site.clients() {
        let mut now_keys = keys(1);
        let shared = process(&now_keys);
        let server = site.frontend(&site.settings, &shared);
        assert!(!resumes(&client, &server));
        for seed in 2..4 {
            pass(ROTATION);
            now_keys = now_keys.rotated(clock(), [seed; KEY_BYTES]).unwrap();
            shared.tickets.replace(&now_keys);
            assert!(
                resumes(&client, &server),
                "the client came back in time, and got a new ticket"
            );
        }
        pass(TICKET_LIFETIME + Duration::from_secs(1));
        assert!(
            !resumes(&client, &server),
            "its key is still there, but the ticket is too old"
        );
    }
}

#[test]
fn a_ticket_ends_with_its_lifetime_although_a_shared_key_never_changes() {
    let site = site();
    let shared_file = TicketKeys::from_shared(&[7; 80]).unwrap();
    let server = site.frontend(&site.settings, &process(&shared_file));
    for client in site.clients() {
        assert!(!resumes(&client, &server));
        pass(TICKET_LIFETIME - HOUR);
        assert!(resumes(&client, &server));
        pass(TICKET_LIFETIME + HOUR);
        assert!(!resumes(&client, &server));
    }
}

#[test]
fn a_session_does_not_go_on_at_another_frontend() {
    let site = site();
    let shared = process(&keys(1));
    let one = site.frontend(&site.settings, &shared);
    let other = site.frontend(&ServerSettings::new("other"), &shared);
    for client in site.clients() {
        assert!(!resumes(&client, &one));
        assert!(
            !resumes(&client, &other),
            "somebody in between could send clients to the wrong frontend"
        );
    }
}

#[test]
fn a_client_without_tickets_resumes_from_the_cache_until_the_process_ends() {
    let site = site();
    let shared = process(&keys(1));
    let server = site.frontend(&site.settings, &shared);
    let mut config = Client::of(&site.ca).version(&TLS12).config();
    config.resumption =
        Resumption::in_memory_sessions(8).tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
    let client = Arc::new(config);
    assert!(!resumes(&client, &server));
    assert!(resumes(&client, &server));
    let after_reload = site.frontend(&site.settings, &shared);
    assert!(
        resumes(&client, &after_reload),
        "the cache belongs to no configuration"
    );
    let other = site.frontend(&ServerSettings::new("other"), &shared);
    assert!(!resumes(&client, &other));
    let restarted = site.frontend(&site.settings, &process(&keys(1)));
    assert!(!resumes(&client, &restarted));
}

#[test]
fn without_tickets_sessions_are_kept_in_memory() {
    let site = site();
    let settings = ServerSettings {
        tickets: false,
        ..site.settings.clone()
    };
    for client in site.clients() {
        let server = site.frontend(&settings, &process(&keys(1)));
        assert!(!resumes(&client, &server));
        assert!(resumes(&client, &server));
        let restarted = site.frontend(&settings, &process(&keys(1)));
        assert!(!resumes(&client, &restarted), "no ticket has gone out");
    }
}

/// A frontend that asks for client certificates, and what may change about it.
fn with_client_ca(site: &Site, ca: &[u8], crls: Vec<Vec<u8>>) -> ServerSettings {
    ServerSettings {
        client_auth: Some(ClientAuthSettings {
            required: true,
            ca: ca.to_vec(),
            crls,
            crl_policy: crate::config::CrlPolicy::Listed,
        }),
        ..site.settings.clone()
    }
}

#[test]
fn a_session_does_not_carry_a_client_past_a_change_of_whom_the_frontend_trusts() {
    let site = site();
    let shared = process(&keys(1));
    let ca = site.ca.certificate.pem();
    let before = site.frontend(&with_client_ca(&site, ca.as_bytes(), Vec::new()), &shared);
    let other_ca = ca.clone() + &Ca::new("another").certificate.pem();
    let changed_ca = site.frontend(&with_client_ca(&site, other_ca.as_bytes(), Vec::new()), &shared);
    let open = site.frontend(&site.settings, &shared);
    for version in VERSIONS {
        let known = || {
            let identity = site.ca.issue(Key::P256, &["client"]);
            Client::of(&site.ca).version(version).identity(identity).arc()
        };
        let client = known();
        assert!(!resumes(&client, &before));
        assert!(resumes(&client, &before));
        assert!(!resumes(&client, &changed_ca));
        // whoever has a session of a frontend that asks for nothing must not get in with it
        let stranger = Client::of(&site.ca).version(version).arc();
        assert!(!resumes(&stranger, &open));
        assert!(connect(&stranger, &before, "a.test").is_err());
    }
}

#[test]
fn a_client_with_a_certificate_shows_it_again_at_least_daily() {
    let site = site();
    let settings = with_client_ca(&site, site.ca.certificate.pem().as_bytes(), Vec::new());
    for tickets in [true, false] {
        let settings = ServerSettings {
            tickets,
            ..settings.clone()
        };
        let server = site.frontend(&settings, &process(&keys(1)));
        for version in VERSIONS {
            let identity = site.ca.issue(Key::P256, &["client"]);
            let client = Client::of(&site.ca).version(version).identity(identity).arc();
            assert!(!resumes(&client, &server));
            let full = (0..24).filter(|_| {
                pass(HOUR);
                !resumes(&client, &server)
            });
            let full = full.count();
            // a session in memory is not prolonged by resuming it, so it ends after its lifetime too
            assert!(
                (1..=3).contains(&full),
                "{full} times, however often it comes back"
            );
        }
    }
}

#[test]
fn a_resumed_session_still_knows_who_the_client_is() {
    let site = site();
    let settings = with_client_ca(&site, site.ca.certificate.pem().as_bytes(), Vec::new());
    let server = site.frontend(&settings, &process(&keys(1)));
    for version in VERSIONS {
        let identity = site.ca.issue(Key::P256, &["client"]);
        let client = Client::of(&site.ca).version(version).identity(identity).arc();
        for resumed in [false, true] {
            let session = connect(&client, &server, "a.test").unwrap().session();
            assert_eq!(session.resumed, resumed);
            assert_eq!(&*session.client.unwrap().subject, "CN=client");
        }
    }
}
