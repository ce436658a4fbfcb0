//! What has gone on in the last quarter of an hour, step by step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::trend::{STEP, STEPS, Step};

/// `GET /v1/history`: averages of each step, the oldest first. Every list has as many values, 180 at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// How long a step is, in seconds. The last one has ended less than that ago.
    pub step_seconds: u64,
    /// New connections a second.
    pub connections: Vec<f64>,
    /// Connections that failed or were refused a second; those that clients have ended are none.
    pub failures: Vec<f64>,
    /// Bytes from clients to servers a second.
    pub bytes_in: Vec<f64>,
    /// Bytes from servers to clients a second.
    pub bytes_out: Vec<f64>,
    /// Connections that were open at the end of the step.
    pub open: Vec<u32>,
    /// Of the packet modes; absent where these are not in use, and of anything but the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<PacketHistory>,
}

/// What the packet modes have done, step by step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PacketHistory {
    /// Packets forwarded a second; a super-frame counts once.
    pub forwarded: Vec<f64>,
    /// Packets a second that were ours and were not forwarded.
    pub refused: Vec<f64>,
    /// Flows at the end of the step.
    pub flows: Vec<u32>,
}

/// Of what: nothing is the whole load balancer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Of this frontend.
    pub frontend: Option<String>,
    /// Of this backend.
    pub backend: Option<String>,
    /// Of this server of the backend.
    pub server: Option<String>,
}

impl History {
    /// Of the sum of these, each of which ends with the last step: of a process that has lived through so many.
    #[must_use]
    pub fn sum(lived: usize, all: impl IntoIterator<Item = Vec<Step>>) -> Self {
        let mut sum = vec![Step::default(); lived.min(STEPS)];
        for steps in all {
            add(&mut sum, &steps);
        }
        Self::of(&sum)
    }

    fn of(steps: &[Step]) -> Self {
        Self {
            step_seconds: STEP.as_secs(),
            connections: rates(steps, |step| step.connections.into()),
            failures: rates(steps, |step| step.failures.into()),
            bytes_in: rates(steps, |step| step.bytes_in.into()),
            bytes_out: rates(steps, |step| step.bytes_out.into()),
            open: steps.iter().map(|step| step.current).collect(),
            packets: None,
        }
    }
}

impl From<&[Step]> for PacketHistory {
    /// Of steps whose connections are packets.
    fn from(steps: &[Step]) -> Self {
        Self {
            forwarded: rates(steps, |step| step.connections.into()),
            refused: rates(steps, |step| step.failures.into()),
            flows: steps.iter().map(|step| step.current).collect(),
        }
    }
}

fn rates(steps: &[Step], of: impl Fn(&Step) -> f64) -> Vec<f64> {
    steps.iter().map(|step| of(step) / STEP.as_secs_f64()).collect()
}

/// Adds steps to a sum, so that both end together.
fn add(sum: &mut Vec<Step>, steps: &[Step]) {
    let missing = steps.len().saturating_sub(sum.len()).min(STEPS);
    sum.splice(0..0, std::iter::repeat_n(Step::default(), missing));
    for (total, step) in sum.iter_mut().rev().zip(steps.iter().rev()) {
        total.connections = total.connections.saturating_add(step.connections);
        total.current = total.current.saturating_add(step.current);
        total.failures = total.failures.saturating_add(step.failures);
        total.bytes_in += step.bytes_in;
        total.bytes_out += step.bytes_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(connections: u32) -> Step {
        Step {
            connections,
            current: connections,
            ..Step::default()
        }
    }

    #[test]
    fn a_sum_ends_with_the_last_step_of_each() {
        let history = History::sum(0, [vec![step(5)], vec![step(5), step(10), step(20)], vec![]]);
        assert_eq!(history.connections, [1.0, 2.0, 5.0]);
        assert_eq!(history.open, [5, 10, 25]);
        assert_eq!(history.failures, [0.0; 3]);
        assert_eq!(history.step_seconds, 5);
        assert_eq!(History::sum(0, []).connections, Vec::<f64>::new());
        // before its first connection there was nothing, and that is known
        let late = History::sum(3, [vec![step(5)]]);
        assert_eq!(late.connections, [0.0, 0.0, 1.0]);
        assert_eq!(History::sum(10_000, []).open.len(), STEPS);
    }
}
