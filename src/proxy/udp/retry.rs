//! Sessions that wait for their socket.

use super::{datagrams::Datagrams, engine::Engine, wheel::Millis};

impl Engine {
    /// If sockets have come, or been refused, each datagram that waits has a try, in order, and waits again if it must.
    pub fn try_again(&mut self, now: Millis, answers: u64) {
        if !self.waiting.has_news(answers) {
            return;
        }
        self.waiting.note_try(answers);
        for _ in 0..self.waiting.len() {
            let Some((number, held)) = self.waiting.pop() else {
                return;
            };
            let datagrams = Datagrams {
                key: held.key,
                ecn: held.ecn,
                segment: held.segment,
                bytes: &held.bytes,
                is_handed_over: false,
            };
            self.pass(number, datagrams, now);
        }
    }
}
