//! Datagrams that wait for the socket of the session that they begin.

use std::collections::VecDeque;

use super::datagrams::Datagrams;
use crate::proxy::owners::HandedOver;

/// Datagrams, merged ones as one, that wait at most.
const MOST: usize = 1_024;

/// Their bytes at most.
const MOST_BYTES: usize = 1 << 20;

/// Those of a worker.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Each with the number of its listener.
    queue: VecDeque<(u32, HandedOver)>,
    bytes: usize,
    /// Answers that they have had a try after.
    answers: u64,
}

impl Waiting {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether some wait that have had no try since the last of so many answers.
    pub fn has_news(&self, answers: u64) -> bool {
        !self.queue.is_empty() && self.answers != answers
    }

    /// Notes that all have a try now.
    pub fn note_try(&mut self, answers: u64) {
        self.answers = answers;
    }

    /// Adds some of a client; false if there is no room.
    pub fn push(&mut self, number: u32, datagrams: Datagrams<'_>) -> bool {
        let bytes = self.bytes + datagrams.bytes.len();
        if self.queue.len() >= MOST || bytes > MOST_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.queue.push_back((number, datagrams.to_be_kept()));
        true
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<(u32, HandedOver)> {
        let next = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(next.1.bytes.len());
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::owners::SessionKey;

    fn of_a_client(bytes: &[u8]) -> Datagrams<'_> {
        Datagrams {
            key: SessionKey {
                client: ([192, 0, 2, 1], 1).into(),
                local: ([198, 51, 100, 1], 53).into(),
                interface: None,
            },
            ecn: 0,
            segment: None,
            bytes,
            is_handed_over: false,
        }
    }

    #[test]
    fn what_waits_keeps_its_order_and_has_an_end_in_number_and_bytes() {
        let mut waiting = Waiting::default();
        for number in 0..1_024 {
            assert!(waiting.push(number, of_a_client(b"x")));
        }
        assert!(!waiting.push(0, of_a_client(b"x")), "as many as may wait");
        assert_eq!(waiting.pop().map(|(number, _)| number), Some(0));
        assert!(waiting.push(9, of_a_client(b"x")));
        let mut waiting = Waiting::default();
        let large = vec![0; 60_000];
        let taken = (0..100).filter(|_| waiting.push(0, of_a_client(&large))).count();
        assert_eq!(taken, MOST_BYTES / large.len());
    }

    #[test]
    fn each_answer_is_one_try() {
        let mut waiting = Waiting::default();
        assert!(!waiting.has_news(1), "nothing waits");
        waiting.push(0, of_a_client(b"x"));
        assert!(waiting.has_news(1));
        waiting.note_try(1);
        assert!(!waiting.has_news(1));
        assert!(waiting.has_news(2));
    }
}
