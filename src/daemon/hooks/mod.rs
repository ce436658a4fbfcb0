//! `[hooks]`: commands of the operator are told what happens to servers and backends.
//!
//! ```text
//! snapshot published ─► events ─► queue (bounded) ─► one run of on_change at a time ─► the next with all that came meanwhile
//! ```

mod events;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::sleep};

use super::logging::time::Utc;
use crate::{
    base::ChangeEvent,
    client::runner::Runner,
    config::{self, Command},
    snapshot::Built,
};
use events::Event;

/// Events that wait for the command, at most.
const MAX_WAITING: usize = 1_024;

/// Bytes of a line, at most: what a check says may be long.
const MAX_LINE_BYTES: usize = 1_000;

/// How long is waited for more of what comes together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Tells the commands of the configuration. Dropping it ends that.
pub struct Hooks {
    waiting: Arc<Waiting>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    some: Notify,
}

/// What is to be told, and by which command.
#[derive(Debug, Default, PartialEq, Eq)]
struct Queue {
    lines: VecDeque<String>,
    dropped: u64,
    command: Option<Command>,
}

impl Hooks {
    /// Nothing to tell yet. To be called within the runtime.
    #[must_use]
    pub fn new(runner: Runner) -> Self {
        let waiting = Arc::new(Waiting::default());
        let task = tokio::spawn(tell(runner, Arc::clone(&waiting)));
        Self { waiting, task }
    }

    /// Has what a snapshot changes told, as a configuration says.
    pub fn published(&self, built: &Built, hooks: &config::Hooks) {
        let Some(command) = &hooks.on_change else {
            return;
        };
        let views = built.backends.iter();
        let events: Vec<Event> = views
            .flat_map(|backend| events::between(backend.before.as_deref(), backend.after.as_deref()))
            .collect();
        if events.is_empty() {
            return;
        }
        self.waiting
            .queue()
            .add(&events, command, SystemTime::now().into());
        self.waiting.some.notify_one();
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, events: &[Event], command: &Command, now: Utc) {
        self.command = Some(command.clone());
        for event in events {
            if self.lines.len() < MAX_WAITING {
                self.lines.push_back(line(event, now));
            } else {
                self.dropped += 1;
            }
        }
    }

    /// What to run, and what it reads; nothing waits afterwards.
    fn take(&mut self, now: Utc) -> Option<(Command, String)> {
        let command = self.command.take()?;
        let mut text: String = self.lines.drain(..).collect();
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let event = ChangeEvent::EventsDropped;
            // to a String, which never fails
            let _ = writeln!(
                text,
                "{now}\t{event}\t-\t-\t-\t{dropped} more events were not told"
            );
        }
        Some((command, text))
    }
}

/// Time, event, backend, server, address and reason between tabs, which no name can have; `-` for what there is not, so that a shell's
/// `read` finds every field.
fn line(event: &Event, now: Utc) -> String {
    let backend = &event.backend;
    let mut line = format!("{now}\t{}\t{backend}\t", event.event);
    let _ = match &event.server {
        Some((server, addr)) => write!(line, "{server}\t{addr}\t"),
        None => write!(line, "-\t-\t"),
    };
    let reason = event.reason.as_deref().unwrap_or("-");
    line.extend(reason.chars().map(|c| if c.is_control() { ' ' } else { c }));
    if line.len() > MAX_LINE_BYTES {
        let end = (0..=MAX_LINE_BYTES).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
    }
    line.push('\n');
    line
}

/// Runs the command for what waits, again and again.
async fn tell(runner: Runner, waiting: Arc<Waiting>) {
    let mut last_failure = None;
    loop {
        waiting.some.notified().await;
        sleep(TOGETHER).await;
        let Some((command, text)) = waiting.queue().take(SystemTime::now().into()) else {
            continue;
        };
        let failure = runner.run(&command, text.as_bytes()).await.err();
        let failure = failure.map(|error| error.to_string());
        match &failure {
            // one that fails each time is said once
            Some(why) if failure != last_failure => tracing::warn!(
                event = "hook_failed",
                "on_change of [hooks] ({}): {why}; {} event(s) may not have been told",
                command.program(),
                text.lines().count()
            ),
            None if last_failure.is_some() => {
                tracing::info!(event = "hook_recovered", "on_change of [hooks] works again");
            }
            _ => {}
        }
        last_failure = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{BackendName, ServerAddr, ServerName},
        client::runner::message::MAX_INPUT_BYTES,
    };

    fn event(reason: Option<&str>) -> Event {
        Event {
            event: ChangeEvent::ServerDown,
            backend: BackendName::new("web shop").unwrap(),
            server: Some((
                ServerName::new("a").unwrap(),
                ServerAddr::new("[2001:db8::1]:80".parse().unwrap()),
            )),
            reason: reason.map(Into::into),
        }
    }

    fn command() -> Command {
        Command {
            line: vec!["/bin/true".into()],
            timeout: Duration::from_secs(1),
        }
    }

    fn now() -> Utc {
        SystemTime::UNIX_EPOCH.into()
    }

    #[test]
    fn an_event_is_a_line_of_six_fields_whatever_the_reason_says() {
        let text = line(&event(Some("refused\tby\nhost")), now());
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000Z\tserver_down\tweb shop\ta\t[2001:db8::1]:80\trefused by host\n"
        );
        let long = line(&event(Some(&"ß".repeat(5_000))), now());
        assert!(
            long.len() <= MAX_LINE_BYTES + 1 && long.ends_with("ß\n"),
            "{long}"
        );
        let whole = Event {
            event: ChangeEvent::BackendDown,
            server: None,
            ..event(None)
        };
        assert!(line(&whole, now()).ends_with("\tbackend_down\tweb shop\t-\t-\t-\n"));
    }

    #[test]
    fn what_comes_while_the_command_runs_is_told_together_up_to_a_bound() {
        let mut queue = Queue::default();
        assert_eq!(queue.take(now()), None);
        let many = vec![event(None); MAX_WAITING + 7];
        queue.add(&many, &command(), now());
        let (_, text) = queue.take(now()).unwrap();
        assert_eq!(text.lines().count(), MAX_WAITING + 1);
        assert!(text.ends_with("\tevents_dropped\t-\t-\t-\t7 more events were not told\n"));
        assert_eq!(queue, Queue::default());
        const { assert!(MAX_WAITING * (MAX_LINE_BYTES + 1) < MAX_INPUT_BYTES) };
    }
}
