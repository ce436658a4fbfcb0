//! The text of the configuration in effect: published, kept, replaced.

use std::{sync::Arc, time::Instant};

use axum::http::StatusCode;
use tokio::{sync::oneshot, task::spawn_blocking};

use super::Control;
use crate::{
    admin::{
        status::{CHANGED, ConfigInEffect},
        views::Problem,
    },
    privilege::BrokerError,
};

impl Control {
    /// Takes the text in effect and has it kept, unless it is the same as before: most reloads are looks.
    pub(super) fn take_text(&mut self, by: String, changes: &[String]) {
        let source = self.reload.in_effect();
        if self.in_effect.source.bytes == source.bytes {
            // what it names may have changed
            Arc::make_mut(&mut self.in_effect).loaded = Instant::now();
            return;
        }
        let may_write = self.in_effect.may_write;
        let taken = ConfigInEffect::new(source.clone(), self.options, may_write, Instant::now());
        self.in_effect = Arc::new(taken);
        self.keep_text(by, changes);
    }

    /// Has the text in effect kept. Nobody waits for the disk.
    pub(super) fn keep_text(&self, by: String, changes: &[String]) {
        let (history, text) = (Arc::clone(&self.history), Arc::clone(&self.in_effect));
        let (changes, generation) = (changes.to_vec(), self.config_generation);
        drop(tokio::spawn(async move {
            // one after the other, as they took effect
            let _turn = history.turn().lock().await;
            let keeping = Arc::clone(&history);
            let kept = spawn_blocking(move || keeping.keep(&text.source.bytes, &by, generation, &changes));
            drop(kept.await);
        }));
    }

    /// Has the broker replace the file by another text, if it has what is to be replaced: the text in effect unless another is
    /// given.
    pub(super) fn write_config(
        &self,
        text: Vec<u8>,
        replaces: Option<Vec<u8>>,
        expected: &str,
        reply: oneshot::Sender<Result<(), Problem>>,
    ) {
        // whoever asked may have gone
        if !self.in_effect.may_write {
            let _ = reply.send(Err(Problem::new(
                StatusCode::FORBIDDEN,
                "the configuration is not written through the API: set `allow_config_writes = true` in [admin] and restart",
            )));
            return;
        }
        if self.in_effect.tag != expected {
            let _ = reply.send(Err(changed()));
            return;
        }
        let (broker, in_effect) = (self.broker.clone(), Arc::clone(&self.in_effect));
        drop(tokio::spawn(async move {
            let before = replaces.unwrap_or_else(|| in_effect.source.bytes.clone());
            let written = broker.write_config(before, text).await;
            let _ = reply.send(written.map_err(|error| refused(&error)));
        }));
    }
}

fn changed() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, CHANGED)
}

fn refused(error: &BrokerError) -> Problem {
    match error {
        BrokerError::Changed => Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "the file has another text than the one in effect: somebody has edited it; what they wrote is kept. Reload it, or \
             mend it, and read the configuration anew",
        ),
        BrokerError::Refused(_) => Problem::new(StatusCode::FORBIDDEN, error.to_string()),
        BrokerError::Unreadable(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
