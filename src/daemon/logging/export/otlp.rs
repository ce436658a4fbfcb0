//! The actor of a collector that gets the connection log by OTLP.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, timeout_at},
};

use super::super::sink::{Batch, Message, SinkState};
use crate::{
    base::OtlpLoss,
    client::otlp::retry::Backoff,
    daemon::otlp::{Collector, Sent, SignalState},
};

/// How long records are gathered for one request: as the SDKs do (OTEL_BLRP_SCHEDULE_DELAY).
const GATHERED: Duration = Duration::from_secs(1);

/// Most bytes of the records of one request, but for the last one.
const REQUEST_BYTES: usize = 1 << 20;

/// Sends until nobody hands anything over any more.
pub async fn run(
    collector: Collector,
    place: &SinkState,
    signal: Arc<SignalState>,
    inbox: UnboundedReceiver<Message>,
) {
    let mut actor = Actor {
        collector,
        place,
        signal,
        inbox,
        taken: VecDeque::new(),
        random: RandomState::new(),
    };
    while let Some(batches) = actor.gather().await {
        let records: Vec<&[u8]> = batches.iter().flat_map(|batch| batch.lines_from(0)).collect();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let (request, later) = rest.split_at(fitting(rest));
            actor.deliver(request).await;
            rest = later;
        }
        batches.iter().for_each(|batch| place.done(batch));
    }
}

/// How many of the records fit into a request, one at least.
fn fitting(records: &[&[u8]]) -> usize {
    let mut bytes = 0;
    let more = records.iter().position(|record| {
        bytes += record.len();
        bytes > REQUEST_BYTES
    });
    more.map_or(records.len(), |first| first.max(1))
}

struct Actor<'a> {
    collector: Collector,
    place: &'a SinkState,
    signal: Arc<SignalState>,
    inbox: UnboundedReceiver<Message>,
    /// What has come meanwhile, no more than the place lets wait.
    taken: VecDeque<Batch>,
    random: RandomState,
}

impl Actor<'_> {
    /// What comes within a while, at least one batch; `None` when nothing comes any more.
    async fn gather(&mut self) -> Option<Vec<Batch>> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut until = None;
        while bytes < REQUEST_BYTES {
            let next = match (self.taken.pop_front(), until) {
                (Some(batch), _) => Some(Message::Batch(batch)),
                (None, None) => self.inbox.recv().await,
                (None, Some(until)) => match timeout_at(until, self.inbox.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Message::Batch(batch)) => {
                    bytes += batch.bytes.len();
                    batches.push(batch);
                    until.get_or_insert_with(|| Instant::now() + GATHERED);
                }
                Some(Message::Opened(_)) => {}
                None => break,
            }
        }
        (!batches.is_empty()).then_some(batches)
    }

    /// Waits until it is time for another attempt, or for the last one.
    async fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while let Ok(next) = timeout_at(until, self.inbox.recv()).await {
            match next {
                Some(Message::Batch(batch)) => self.taken.push_back(batch),
                Some(Message::Opened(_)) => {}
                None => return,
            }
        }
    }

    /// Sends records until they are taken or refused; at the end of the process, or of the place, once.
    async fn deliver(&mut self, records: &[&[u8]]) {
        let mut backoff = Backoff::new();
        loop {
            match self.collector.send(records, &self.signal).await {
                Sent::Yes(None) => {
                    self.signal.works();
                    return self.place.works();
                }
                Sent::Yes(Some((rejected, why))) => {
                    return self.lose(OtlpLoss::Rejected, rejected.min(records.len() as u64), &why);
                }
                Sent::Refused(why) => return self.lose(OtlpLoss::Refused, records.len() as u64, &why),
                Sent::Again(_, why) if self.inbox.is_closed() => {
                    return self.lose(OtlpLoss::Late, records.len() as u64, &why);
                }
                Sent::Again(after, why) => {
                    self.lose(OtlpLoss::Late, 0, &why);
                    let random = self.random.hash_one(Instant::now().into_std());
                    self.pause(backoff.wait(after, random)).await;
                }
            }
        }
    }

    fn lose(&self, loss: OtlpLoss, records: u64, why: &str) {
        self.signal.lose(loss, records);
        self.place
            .add_dropped(usize::try_from(records).unwrap_or(usize::MAX));
        self.signal.fails(why);
        self.place.fails(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_and_each_has_a_record() {
        let (small, large) = (vec![0; REQUEST_BYTES / 2], vec![0; REQUEST_BYTES + 1]);
        let fits = |records: &[&Vec<u8>]| {
            let records: Vec<&[u8]> = records.iter().map(|record| record.as_slice()).collect();
            fitting(&records)
        };
        assert_eq!(fits(&[&small]), 1);
        assert_eq!(fits(&[&small, &small, &small]), 2);
        assert_eq!(fits(&[&large, &small]), 1);
        assert_eq!(fits(&[&small, &large]), 1);
    }
}
