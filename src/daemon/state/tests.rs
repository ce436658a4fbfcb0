//! The state by itself: whatever happens between two commits, one configuration is in effect, and whole.

use std::{collections::BTreeSet, fmt::Write as _};

use proptest::prelude::*;

use super::*;
use crate::{
    base::ServerName,
    config::{Options, Source},
    health::TlsToServers,
    pools::AdminState,
};

/// What a schedule does.
#[derive(Debug, Clone)]
enum Move {
    /// A reload tries out the configuration of this number.
    TryOut(u8),
    /// It is given up.
    Abandon,
    /// It takes effect.
    Commit,
    /// A check finds something out about a server in effect, or tried out.
    Found { server: u8, is_up: bool, tried: bool },
    /// An operator sets or clears an override.
    Override { server: u8, drains: bool },
    /// What has come together is published.
    Publish,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let server = 0..3_u8;
    let one = prop_oneof![
        2 => (0..4_u8).prop_map(Move::TryOut),
        1 => Just(Move::Abandon),
        2 => Just(Move::Commit),
        6 => (server.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(server, is_up, tried)| Move::Found { server, is_up, tried }),
        2 => (server, any::<bool>()).prop_map(|(server, drains)| Move::Override { server, drains }),
        3 => Just(Move::Publish),
    ];
    prop::collection::vec(one, 0..60)
}

/// A configuration whose names and addresses carry its number; server `s0` of backend `kept` is in all of them, at another
/// address in odd ones.
fn config(number: u8) -> Config {
    let kept = number % 2;
    let mut text = format!(
        "[frontends.f{number}]\nlisten_addr = \"127.0.0.1:{}\"\nbackend = \"b{number}\"\n\
         [backends.kept]\nservers.s0 = {{ addr = \"192.0.2.{kept}:80\" }}\n[backends.b{number}]\n",
        8000 + u16::from(number)
    );
    for server in 0..3 {
        let _ = writeln!(
            text,
            "servers.s{server} = {{ addr = \"198.51.100.{number}:{}\" }}",
            80 + server
        );
    }
    let source = Source {
        name: "c.toml".to_owned(),
        bytes: text.into(),
    };
    crate::config::load(&source, Options::default()).unwrap().config
}

fn key(backend: &str, server: u8) -> ServerKey {
    ServerKey {
        backend: BackendName::new(backend).unwrap(),
        server: ServerName::new(&format!("s{server}")).unwrap(),
    }
}

struct World {
    state: State,
    /// Numbers of the configuration in effect and of the one that is tried out.
    number: u8,
    tried: Option<u8>,
    overrides: BTreeSet<u8>,
}

impl World {
    fn new() -> Self {
        // nobody takes updates: what checks find out is made here
        let (updates, _) = mpsc::channel(1);
        let mut state = State::new(
            config(0),
            &Saved::default(),
            NetworkLists::default(),
            TlsViews::default(),
            1,
            updates,
            Instant::now(),
        );
        state.start_checks();
        Self {
            state,
            number: 0,
            tried: None,
            overrides: BTreeSet::new(),
        }
    }

    fn play(&mut self, step: &Move) {
        match *step {
            Move::TryOut(number) => {
                let mut new = config(number);
                new.keep(self.state.config());
                self.state.try_out(&new, &Discovered::new(), &TlsToServers::new());
                self.tried = Some(number);
            }
            Move::Abandon => {
                self.state.abandon_tryout();
                self.tried = None;
            }
            Move::Commit => {
                let Some(number) = self.tried.take() else { return };
                let mut new = config(number);
                new.keep(self.state.config());
                self.state.apply(
                    new,
                    &Discovered::new(),
                    NetworkLists::default(),
                    TlsViews::default(),
                );
                self.state.publish(Instant::now());
                if number != self.number {
                    self.overrides.clear();
                }
                self.number = number;
            }
            Move::Found { server, is_up, tried } => self.found(server, is_up, tried),
            Move::Override { server, drains } => {
                let overridden = Override {
                    admin: drains.then_some(AdminState::Draining),
                    weight: None,
                };
                self.state
                    .set_override(&key(&format!("b{}", self.number), server), overridden);
                self.state.publish(Instant::now());
                if drains {
                    self.overrides.insert(server);
                } else {
                    self.overrides.remove(&server);
                }
            }
            Move::Publish => drop(self.state.publish(Instant::now())),
        }
    }

    fn found(&mut self, server: u8, is_up: bool, tried: bool) {
        let number = if tried { self.tried } else { Some(self.number) };
        let Some(number) = number else { return };
        let key = key(&format!("b{number}"), server);
        let task = if tried {
            self.state
                .tryout
                .as_ref()
                .and_then(|tryout| tryout.trial.task(&key))
        } else {
            self.state.checker.task_of(&key)
        };
        // a server that both have is not tried out
        let Some(task) = task else { return };
        let health = Health::new(
            if is_up { ServerState::Up } else { ServerState::Down },
            Instant::now(),
        );
        let update = HealthUpdate {
            key,
            addr: ServerAddr::new(
                format!("198.51.100.{number}:{}", 80 + u16::from(server))
                    .parse()
                    .unwrap(),
            ),
            task,
            health,
            changed: true,
        };
        self.state.note_health(update, Instant::now());
    }

    /// What readers see is one configuration's, with the overrides of now, and nothing of what is only tried out.
    fn check(&self) {
        let snapshot = self.state.published().load_full();
        let number = self.number;
        let frontends: Vec<_> = snapshot.frontends.keys().map(ToString::to_string).collect();
        assert_eq!(frontends, [format!("f{number}")]);
        let backends: Vec<_> = snapshot.backends.keys().map(ToString::to_string).collect();
        assert_eq!(backends, [format!("b{number}"), "kept".to_owned()]);
        let pool = &snapshot.backends[&*format!("b{number}")];
        for (index, server) in pool.servers.iter().enumerate() {
            let expected = format!("198.51.100.{number}:{}", 80 + index);
            assert_eq!(server.addr.to_string(), expected);
            let drains = server.overridden.admin == Some(AdminState::Draining);
            let index = u8::try_from(index).unwrap();
            assert_eq!(drains, self.overrides.contains(&index), "server {index}");
        }
        let kept = snapshot.backends["kept"].servers[0].addr.to_string();
        assert_eq!(kept, format!("192.0.2.{}:80", number % 2));
        if self.tried.is_none() {
            assert!(self.state.tryout.is_none(), "what was tried out is still checked");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_checks_and_operators_do_meanwhile_one_configuration_is_in_effect(moves in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in &moves {
                world.play(step);
                world.check();
            }
        });
    }
}
