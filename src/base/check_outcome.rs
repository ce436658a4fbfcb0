//! How a health check ended.

/// How one check of a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckOutcome {
    /// The server did what it has to.
    Passed,
    /// It did not.
    Failed,
    /// The check could not be made: it says nothing of the server.
    NotMade,
}

impl CheckOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::NotMade];

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotMade => "not_made",
        }
    }
}

super::label::by_label!(CheckOutcome, CheckOutcome::ALL);
