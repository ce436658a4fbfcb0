//! What the broker may do: exactly what the configuration that it read itself names. Pure.

use std::{net::SocketAddr, time::Duration};

use super::ListenerRef;
use crate::config::Config;

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    config: Config,
}

/// A listener that may be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permitted {
    /// Where.
    pub addr: SocketAddr,
    /// TCP_USER_TIMEOUT of the connections that it accepts.
    pub user_timeout: Option<Duration>,
}

impl Policy {
    /// The policy that a configuration is.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config }
    }

    /// Whether a listener may be bound, and how.
    ///
    /// # Errors
    /// Why not, as text for the operator.
    pub fn may_bind(&self, listener: &ListenerRef) -> Result<Permitted, String> {
        match listener {
            ListenerRef::Stats => {
                let stats = self
                    .config
                    .stats
                    .as_ref()
                    .ok_or("the configuration has no [stats] section")?;
                Ok(Permitted {
                    addr: stats.listen.0,
                    user_timeout: None,
                })
            }
            ListenerRef::Frontend { name, addr } => {
                let frontend = self
                    .config
                    .frontends
                    .get(name.as_str())
                    .ok_or_else(|| format!("the configuration has no frontend `{name}`"))?;
                if !frontend.listen.contains(addr) {
                    return Err(format!(
                        "frontend `{name}` does not listen on {addr} in the configuration"
                    ));
                }
                Ok(Permitted {
                    addr: addr.0,
                    user_timeout: frontend.tcp_user_timeout,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn policy() -> Policy {
        policy_of(
            r#"
            [stats]
            port = 7000
            [frontends.web]
            listen_addr = ["0.0.0.0:80", "[::]:80"]
            backend = "pool"
            [frontends.mail]
            listen_addr = "10.0.0.1:25"
            backend = "pool"
            [backends.pool]
            servers.a = { addr = "10.0.0.2:80" }
            "#,
        )
    }

    fn policy_of(text: &str) -> Policy {
        let source = Source {
            name: "test.toml".to_owned(),
            bytes: text.into(),
        };
        Policy::new(config::load(&source, Options::default()).unwrap().config)
    }

    fn bind(name: &str, addr: &str) -> Result<Permitted, String> {
        let listener = ListenerRef::Frontend {
            name: name.into(),
            addr: crate::base::ListenAddr(addr.parse().unwrap()),
        };
        policy().may_bind(&listener)
    }

    #[test]
    fn every_address_of_a_frontend_may_be_bound_with_its_time_out() {
        for addr in ["0.0.0.0:80", "[::]:80"] {
            let expected = Permitted {
                addr: addr.parse().unwrap(),
                user_timeout: Some(Duration::from_secs(30)),
            };
            assert_eq!(bind("web", addr), Ok(expected));
        }
    }

    #[test]
    fn no_other_address_port_or_frontend_is_bound() {
        for (name, addr) in [
            ("web", "0.0.0.0:81"),
            ("web", "127.0.0.1:80"),
            ("web", "[::1]:80"),
            ("web", "10.0.0.1:25"),
            ("mail", "0.0.0.0:80"),
            ("ssh", "0.0.0.0:22"),
            ("", "0.0.0.0:80"),
        ] {
            let refused = bind(name, addr);
            assert!(
                refused.as_ref().is_err_and(|why| why.contains(name)),
                "{name} {addr}: {refused:?}"
            );
        }
    }

    #[test]
    fn stats_are_bound_only_if_the_section_exists() {
        assert_eq!(
            policy().may_bind(&ListenerRef::Stats).unwrap().addr,
            "127.0.0.1:7000".parse().unwrap()
        );
        let without = policy_of("[global]\n");
        assert_eq!(
            without.may_bind(&ListenerRef::Stats),
            Err("the configuration has no [stats] section".into())
        );
    }
}
