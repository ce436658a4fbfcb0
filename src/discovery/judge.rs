//! Whether an answer is obeyed. Pure.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use super::answer::{Answer, PassedOver, Unanswered};
use crate::{
    base::ServerAddr,
    config::{Discovery, Server, ServerRules, Unfit},
};

/// What an answer is judged by.
#[derive(Debug)]
pub struct Judge<'a> {
    /// The settings.
    pub settings: &'a Discovery,
    /// Which servers the backend may have.
    pub rules: &'a ServerRules,
    /// The addresses of this host.
    pub host: &'a BTreeSet<IpAddr>,
    /// What was discovered before; `None` if it is of another source, and may all go.
    pub before: Option<&'a [Server]>,
}

/// What comes of an answer that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Its servers that may be taken, sorted by name; or why those before stay.
    pub verdict: Result<Arc<[Server]>, Hold>,
    /// Those that may not: how many, and the first of them with the reason.
    pub left_out: LeftOut,
    /// How many were named again.
    pub duplicates: usize,
    /// Why nothing is known of servers that are named.
    pub unanswered: Option<String>,
    /// What the source names that is no server, and why.
    pub passed_over: PassedOver,
}

/// Why an answer is held: the servers in effect stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Fewer servers than wanted.
    TooFew {
        /// Of the answer.
        servers: usize,
        /// `min_servers`.
        least: usize,
    },
    /// More servers would go at once than may.
    TooManyGone {
        /// That would go.
        gone: usize,
        /// In effect.
        of: usize,
        /// That may go.
        most: usize,
    },
}

/// Servers of an answer that may not be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: Option<(ServerAddr, Unfit)>,
}

impl Hold {
    /// The reason in one word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooFew { .. } => "too_few_servers",
            Self::TooManyGone { .. } => "too_many_removed",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { servers, least } => {
                write!(
                    f,
                    "the answer has {servers} usable server(s), fewer than min_servers = {least}"
                )
            }
            Self::TooManyGone { gone, of, most } => write!(
                f,
                "the answer drops {gone} of {of} servers, more than {most} at once (max_removal)"
            ),
        }
    }
}

impl fmt::Display for LeftOut {
    /// Nothing if there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.first) {
            (_, None) => Ok(()),
            (1, Some((addr, why))) => write!(f, "left out {addr}, which {}", why.label()),
            (count, Some((addr, why))) => {
                write!(
                    f,
                    "left out {count} servers, the first of them {addr}, which {}",
                    why.label()
                )
            }
        }
    }
}

/// Why nothing is known of servers that are named: of each, as far as a line has room.
pub fn why_unanswered(unanswered: &[Unanswered]) -> Option<String> {
    const SHOWN: usize = 8;
    let shown = unanswered.iter().take(SHOWN);
    let mut text: Vec<String> = shown
        .map(|unknown| format!("server {}: {}", unknown.server.name, unknown.why))
        .collect();
    match unanswered.len() {
        0 => return None,
        count if count > SHOWN => text.push(format!("and {} more", count - SHOWN)),
        _ => {}
    }
    Some(text.join("; "))
}

impl Judge<'_> {
    /// Judges an answer.
    #[must_use]
    pub fn judge(&self, answer: Answer) -> Judged {
        let Answer {
            servers,
            duplicates,
            unanswered,
            passed_over,
        } = answer;
        let servers = self.with_unanswered(servers, &unanswered);
        let mut left_out = LeftOut::default();
        let mut usable = Vec::with_capacity(servers.len());
        for mut server in servers {
            if let Some(why) = self.rules.unfit(&server, self.host) {
                left_out.count += 1;
                left_out.first.get_or_insert((server.addr, why));
                continue;
            }
            if self.rules.are_for_packets() {
                // packets know neither
                server.sni.clear();
                server.max_connections = None;
            }
            usable.push(server);
        }
        let verdict = match self.hold(&usable) {
            Some(hold) => Err(hold),
            None => Ok(usable.into()),
        };
        Judged {
            verdict,
            left_out,
            duplicates,
            unanswered: why_unanswered(&unanswered),
            passed_over,
        }
    }

    /// The servers with those of before that nothing is known of now. An address that has another name by now is not theirs.
    fn with_unanswered(&self, mut servers: Vec<Server>, unanswered: &[Unanswered]) -> Vec<Server> {
        if unanswered.is_empty() {
            return servers;
        }
        let taken: HashSet<ServerAddr> = servers.iter().map(|server| server.addr).collect();
        let stays = |server: &&Server| {
            let is_of = |unknown: &Unanswered| unknown.server.has_been(server.name.as_str());
            !taken.contains(&server.addr) && unanswered.iter().any(is_of)
        };
        let kept: Vec<_> = self
            .before
            .unwrap_or_default()
            .iter()
            .filter(stays)
            .cloned()
            .collect();
        servers.extend(kept);
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        servers
    }

    fn hold(&self, servers: &[Server]) -> Option<Hold> {
        let least = usize::try_from(self.settings.min_servers).unwrap_or(usize::MAX);
        if servers.len() < least {
            return Some(Hold::TooFew {
                servers: servers.len(),
                least,
            });
        }
        let before = self.before?;
        let stay: HashSet<ServerAddr> = servers.iter().map(|server| server.addr).collect();
        let gone = before
            .iter()
            .filter(|server| !stay.contains(&server.addr))
            .count();
        let most = self.settings.max_removal.of(before.len());
        (gone > most).then_some(Hold::TooManyGone {
            gone,
            of: before.len(),
            most,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{self, AnswerFormat, Config, Options, Source},
        discovery::answer::{Limits, parse},
    };

    fn config(settings: &str) -> Config {
        let text = format!(
            "[frontends.web]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"web\"\n[backends.web.discovery]\nkind = \"file\"\n\
             path = \"/w\"\n{settings}\n"
        );
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    fn answer(text: &str) -> Answer {
        let limits = Limits {
            bytes: 1 << 20,
            servers: 1_000,
        };
        parse(&AnswerFormat::Text, text.as_bytes(), limits).unwrap()
    }

    /// The answer of servers at 10.0.0.N.
    fn hosts(hosts: impl IntoIterator<Item = usize>) -> Answer {
        let lines = hosts
            .into_iter()
            .map(|host| format!("10.0.{}.{} 80\n", host >> 8, host & 255));
        answer(&lines.collect::<String>())
    }

    fn judge(settings: &str, before: Option<&Answer>, answer: Answer) -> Judged {
        let config = config(settings);
        let host = ["10.0.9.9".parse().unwrap()].into();
        let judge = Judge {
            settings: config.backends["web"].discovery.as_ref().unwrap(),
            rules: &config.server_rules("web").unwrap(),
            host: &host,
            before: before.map(|before| before.servers.as_slice()),
        };
        judge.judge(answer)
    }

    #[test]
    fn an_answer_without_servers_is_held_unless_that_is_wanted() {
        let none = judge("", None, hosts([])).verdict.unwrap_err();
        assert_eq!(none.label(), "too_few_servers");
        assert_eq!(
            none.to_string(),
            "the answer has 0 usable server(s), fewer than min_servers = 1"
        );
        assert!(judge("min_servers = 0", None, hosts([])).verdict.is_ok());
        assert!(judge("min_servers = 3", None, hosts([1, 2])).verdict.is_err());
    }

    #[test]
    fn an_answer_that_drops_most_servers_at_once_is_held_with_numbers() {
        let before = hosts(0..10);
        assert!(
            judge("", Some(&before), hosts(5..20)).verdict.is_ok(),
            "half of them"
        );
        let held = judge("", Some(&before), hosts(6..30)).verdict.unwrap_err();
        assert_eq!(held.label(), "too_many_removed");
        assert_eq!(
            held.to_string(),
            "the answer drops 6 of 10 servers, more than 5 at once (max_removal)"
        );
        assert!(
            judge("max_removal = 6", Some(&before), hosts(6..30))
                .verdict
                .is_ok()
        );
        assert!(
            judge("max_removal = \"100%\"", Some(&before), hosts([99]))
                .verdict
                .is_ok()
        );
        assert!(
            judge("max_removal = 0", Some(&before), hosts(1..11))
                .verdict
                .is_err()
        );
        assert!(judge("", None, hosts([99])).verdict.is_ok(), "another source");
        assert!(
            judge("", Some(&hosts([1])), hosts([2])).verdict.is_ok(),
            "one may always go"
        );
    }

    #[test]
    fn servers_that_may_not_be_are_left_out_and_the_rest_is_judged() {
        let odd = "127.0.0.1:80\n10.0.0.1:80\n192.0.2.1:80\n10.0.9.9:80\n";
        let judged = judge("", None, answer(odd));
        assert_eq!(judged.left_out.count, 3);
        assert_eq!(
            judged.left_out.to_string(),
            "left out 3 servers, the first of them 10.0.9.9:80, which is an address of this host"
        );
        let names: Vec<_> = judged
            .verdict
            .unwrap()
            .iter()
            .map(|s| s.name.to_string())
            .collect();
        assert_eq!(names, ["10.0.0.1:80"]);
        let own = judge("", Some(&hosts([1, 2])), answer("192.0.2.1:80\n127.0.0.1:80\n"));
        assert_eq!(own.verdict.unwrap_err().label(), "too_few_servers");
    }

    #[test]
    fn a_server_whose_name_is_not_answered_stays_and_the_others_follow_theirs() {
        use crate::{
            base::ServerName,
            config::{NamedServer, Resolve},
            discovery::answer::of_names,
        };
        let named = |name: &str, resolve| NamedServer {
            name: ServerName::new(name).unwrap(),
            host: format!("{name}.test").parse().unwrap(),
            port: std::num::NonZeroU16::new(80).unwrap(),
            resolve,
            weight: 7,
            priority: 2,
            max_connections: None,
            sni: vec!["a.example".parse().unwrap()],
        };
        let found = |ips: &[&str]| Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>());
        let silent = || Err("silent".to_owned());
        let limits = Limits {
            bytes: 1,
            servers: 10,
        };
        let names = |one: Result<_, String>, all: Result<_, String>| {
            let names = [
                (named("one", Resolve::First), one),
                (named("all", Resolve::All), all),
            ];
            of_names(&names, limits).unwrap()
        };
        let text = |judged: &Judged| -> String {
            let servers = judged.verdict.as_ref().unwrap().iter();
            servers
                .map(|server| format!("{} {} ", server.name, server.addr))
                .collect()
        };
        let whole = names(
            found(&["10.0.0.2", "2001:db8::1", "10.0.0.1"]),
            found(&["10.0.0.3", "10.0.0.4"]),
        );
        let settings = "min_servers = 0\nmax_removal = \"100%\"";
        let judged = judge(settings, None, whole.clone());
        let expected = "all@10.0.0.3 10.0.0.3:80 all@10.0.0.4 10.0.0.4:80 one 10.0.0.1:80 ";
        assert_eq!(
            (text(&judged).as_str(), judged.unanswered.clone()),
            (expected, None)
        );
        let server = &judged.verdict.unwrap()[2];
        assert_eq!((server.weight, server.priority, server.sni.len()), (7, 2, 1));

        let half = judge(settings, Some(&whole), names(found(&["10.0.0.9"]), silent()));
        let expected = "all@10.0.0.3 10.0.0.3:80 all@10.0.0.4 10.0.0.4:80 one 10.0.0.9:80 ";
        assert_eq!(
            (text(&half).as_str(), half.unanswered.as_deref()),
            (expected, Some("server all: silent"))
        );
        let moved = judge(settings, Some(&whole), names(silent(), found(&["10.0.0.1"])));
        assert_eq!(
            text(&moved),
            "all@10.0.0.1 10.0.0.1:80 ",
            "an address is one server"
        );
        let gone = judge(settings, Some(&whole), names(found(&[]), found(&["10.0.0.4"])));
        assert_eq!(text(&gone), "all@10.0.0.4 10.0.0.4:80 ");
    }

    proptest! {
        #[test]
        fn what_is_taken_never_drops_more_than_may_go(
            before in proptest::collection::btree_set(0..60_usize, 0..40),
            after in proptest::collection::btree_set(0..60_usize, 0..40),
            percent in 0..=100_u8,
            least in 0..20_usize,
        ) {
            let settings = format!("max_removal = \"{percent}%\"\nmin_servers = {least}");
            let answer = hosts(before.iter().copied());
            let judged = judge(&settings, Some(&answer), hosts(after.iter().copied()));
            let gone = before.difference(&after).count();
            let may_go = gone <= (before.len() * usize::from(percent) / 100).max(1);
            prop_assert_eq!(judged.verdict.is_ok(), may_go && after.len() >= least);
        }
    }
}
