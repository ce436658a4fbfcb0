//! A server's agent: what it says that the server should get, in the words of HAProxy's agent-check. Pure.
//!
//! A word stays in effect until another of its kind is said: `up` and `down`, `failed`, `stopped`; `ready` and `drain`,
//! `maint`; `NN%`; `maxconn:NN`. Not being reached changes nothing: whether the server works is for the checks to say.

use std::{sync::Arc, time::Instant};

use crate::{
    base::ServerState,
    pools::AdminState,
    snapshot::{AgentSays, Health},
};

/// Most bytes of an answer that are looked at.
pub const MAX_ANSWER_BYTES: usize = 512;

/// Most characters of a word or reason that a text quotes.
const MAX_QUOTED: usize = 80;

/// Most percent of its weight that a server can ask for.
const MAX_PERCENT: u16 = 10_000;

/// What one server's agent has said so far.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    says: AgentSays,
    /// Since when it is down, and why.
    down: Option<(Instant, Arc<str>)>,
    /// When it said that it is up again.
    came_up: Option<Instant>,
}

impl Agent {
    /// Takes its answer, the first line of which counts.
    pub fn heard(&mut self, answer: &[u8], now: Instant) {
        let line = answer
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .next()
            .unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let (words, reason) = line
            .split_once('#')
            .map_or((&*line, None), |(words, reason)| (words, Some(reason.trim())));
        let mut unknown = None;
        let mut is_empty = true;
        for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
            is_empty = false;
            if !self.word(word, reason, now) {
                unknown.get_or_insert_with(|| {
                    format!("it says \"{}\", which is no word of an agent", cut(word))
                });
            }
        }
        let nothing = is_empty.then(|| "it says nothing".to_owned());
        self.says.problem = unknown.or(nothing).map(Into::into);
    }

    /// It could not be asked, or said nothing.
    pub fn failed(&mut self, why: &str) {
        if self.says.problem.as_deref() != Some(why) {
            self.says.problem = Some(why.into());
        }
    }

    /// What checks say of the server, with what its agent says.
    #[must_use]
    pub fn over(&self, health: &Health) -> Health {
        let mut over = health.clone();
        over.agent.clone_from(&self.says);
        match (&self.down, self.came_up) {
            (Some((since, why)), _) if health.state != ServerState::Down => Health {
                state: ServerState::Down,
                since: *since,
                ramp_from: None,
                is_ejected: false,
                reason: Some(Arc::clone(why)),
                ..over
            },
            (None, Some(up)) if health.state == ServerState::Up && up > health.since => Health {
                since: up,
                ramp_from: Some(up),
                ..over
            },
            _ => over,
        }
    }

    /// Takes a word; false if it is none.
    fn word(&mut self, word: &str, reason: Option<&str>, now: Instant) -> bool {
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "up" => {
                if self.down.take().is_some() {
                    self.came_up = Some(now);
                }
            }
            "down" | "fail" | "failed" | "stopped" => {
                let reason = reason.filter(|reason| !reason.is_empty());
                let why = reason.map_or_else(
                    || format!("its agent says \"{word}\""),
                    |reason| format!("its agent says \"{word}\": {}", cut(reason)),
                );
                match &mut self.down {
                    Some((_, before)) if **before == *why => {}
                    Some((_, before)) => *before = why.into(),
                    None => self.down = Some((now, why.into())),
                }
            }
            "ready" => self.says.admin = None,
            "drain" => self.says.admin = Some(AdminState::Draining),
            "maint" => self.says.admin = Some(AdminState::Maintenance),
            _ => return self.number(&word),
        }
        true
    }

    fn number(&mut self, word: &str) -> bool {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(percent) = word.strip_suffix('%').filter(|text| digits(text)) {
            self.says.weight_percent = Some(percent.parse().unwrap_or(MAX_PERCENT).min(MAX_PERCENT));
            return true;
        }
        if let Some(most) = word.strip_prefix("maxconn:").filter(|text| digits(text)) {
            self.says.max_connections = Some(most.parse().unwrap_or(u32::MAX));
            return true;
        }
        false
    }
}

/// A text of an agent's, such that it can stand in a line.
fn cut(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn heard(agent: &mut Agent, answer: &str, now: Instant) -> Health {
        agent.heard(answer.as_bytes(), now);
        let started = now - Duration::from_secs(60);
        agent.over(&Health::new(ServerState::Up, started))
    }

    #[test]
    fn a_word_stays_until_another_of_its_kind_is_said() {
        let (mut agent, now) = (Agent::default(), Instant::now());
        let health = heard(&mut agent, "75% drain maxconn:30\n", now);
        assert_eq!(
            health.agent,
            AgentSays {
                admin: Some(AdminState::Draining),
                weight_percent: Some(75),
                max_connections: Some(30),
                problem: None,
            }
        );
        let health = heard(&mut agent, "READY,up\r\nignored", now);
        assert_eq!(health.agent.admin, None);
        assert_eq!(
            health.agent.weight_percent,
            Some(75),
            "not mentioned, not changed"
        );
    }

    #[test]
    fn down_has_a_reason_and_lasts_until_up() {
        let (mut agent, now) = (Agent::default(), Instant::now());
        let health = heard(&mut agent, "down#disk full\n", now);
        assert_eq!(health.state, ServerState::Down);
        assert_eq!(
            health.reason.as_deref(),
            Some("its agent says \"down\": disk full")
        );
        let later = now + Duration::from_secs(2);
        assert_eq!(
            heard(&mut agent, "stopped", later).since,
            now,
            "since the first time"
        );
        agent.failed("connection refused");
        let health = agent.over(&Health::new(ServerState::Up, now));
        assert_eq!(
            health.state,
            ServerState::Down,
            "an agent that is gone takes nothing back"
        );
        assert_eq!(health.agent.problem.as_deref(), Some("connection refused"));
        let later = now + Duration::from_secs(4);
        let health = heard(&mut agent, "up", later);
        assert_eq!(
            (health.state, health.since, health.ramp_from),
            (ServerState::Up, later, Some(later))
        );
    }

    #[test]
    fn a_server_that_fails_its_checks_is_down_whatever_its_agent_says() {
        let (mut agent, now) = (Agent::default(), Instant::now());
        agent.heard(b"up 100%", now);
        let mut down = Health::new(ServerState::Down, now);
        down.reason = Some("connection refused".into());
        assert_eq!(agent.over(&down).reason.as_deref(), Some("connection refused"));
    }

    #[test]
    fn what_is_no_word_is_said_and_the_others_count() {
        let (mut agent, now) = (Agent::default(), Instant::now());
        let health = heard(&mut agent, "50% splendid\x07 up", now);
        assert_eq!(health.agent.weight_percent, Some(50));
        assert!(
            health
                .agent
                .problem
                .unwrap()
                .starts_with("it says \"splendid \", which is")
        );
        assert_eq!(
            heard(&mut agent, "", now).agent.problem.as_deref(),
            Some("it says nothing")
        );
        assert_eq!(
            heard(&mut agent, "70000%", now).agent.weight_percent,
            Some(MAX_PERCENT)
        );
        for odd in ["%", "-5%", "maxconn:", "maxconn:x", "5"] {
            assert!(heard(&mut agent, odd, now).agent.problem.is_some(), "{odd}");
        }
    }

    #[test]
    fn weights_are_parts_of_the_configured_one() {
        let of = |percent: u16, configured: u16| {
            let says = AgentSays {
                weight_percent: Some(percent),
                ..AgentSays::default()
            };
            says.weight(configured)
        };
        assert_eq!(
            [of(50, 10), of(1, 1), of(0, 10), of(200, 10), of(10_000, 60_000)],
            [5, 1, 0, 20, u16::MAX]
        );
        assert_eq!(AgentSays::default().weight(7), 7);
    }
}
