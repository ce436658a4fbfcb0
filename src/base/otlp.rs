//! What is exported by OTLP, and what becomes of it.

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OtlpSignal {
    /// Metrics.
    Metrics,
    /// Log records: of finished connections.
    Logs,
}

impl OtlpSignal {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Logs];

    /// The word for it in metrics, the log and the API, and at the end of the URL.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// What a request to a collector has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtlpResult {
    /// Everything in it was accepted.
    Accepted,
    /// Something in it was rejected.
    Partial,
    /// It was refused for good.
    Refused,
    /// The collector wants it later.
    Later,
    /// There was no answer that says anything.
    Failed,
}

impl OtlpResult {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Accepted,
        Self::Partial,
        Self::Refused,
        Self::Later,
        Self::Failed,
    ];

    /// The word for it in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Later => "later",
            Self::Failed => "failed",
        }
    }
}

/// Why data points or log records did not get to the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtlpLoss {
    /// It has refused the request that they were in.
    Refused,
    /// It has rejected them out of a request that it accepted.
    Rejected,
    /// They were not taken in time: newer ones were due, or the process ended.
    Late,
    /// Too many waited.
    QueueFull,
}

impl OtlpLoss {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Refused, Self::Rejected, Self::Late, Self::QueueFull];

    /// The word for it in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Late => "late",
            Self::QueueFull => "queue_full",
        }
    }
}

super::by_label!(OtlpSignal, [Self::Metrics, Self::Logs]);
