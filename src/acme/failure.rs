//! Why there is no certificate, in the CA's own words where it has any.

use std::{fmt, time::Duration};

use instant_acme::{Error, Problem};

use super::transport_error::TransportError;

/// Longest text that is kept, in characters.
const LONGEST: usize = 600;

/// What stands before the kinds of problems (RFC 8555, section 6.7).
const URN: &str = "urn:ietf:params:acme:error:";

/// Why an order, or a question, came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind it is.
    pub kind: FailureKind,
    /// In words.
    pub text: String,
    /// How long the CA wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// The CA cannot be reached.
    Unreachable,
    /// It has not answered, or not decided, in time.
    Silent,
    /// What it answers is not ACME.
    Malformed,
    /// It refuses the order.
    Refused,
    /// It has had too many of late.
    RateLimited,
    /// It does not know, or does not let in, our account.
    Account,
    /// It has not seen that a name is ours.
    Challenge,
    /// The command that changes the DNS has failed.
    Hook,
    /// A file or a secret that is needed cannot be used.
    Unusable,
    /// What it has issued cannot be served.
    Certificate,
    /// The state directory does not take it.
    Storage,
    /// A reload has made it needless.
    GivenUp,
    /// A fault of our own.
    Internal,
}

impl FailureKind {
    /// The reason in one word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Account => "account",
            Self::Challenge => "challenge",
            Self::Hook => "hook",
            Self::Unusable => "unusable",
            Self::Certificate => "certificate",
            Self::Storage => "storage",
            Self::GivenUp => "given_up",
            Self::Internal => "internal",
        }
    }
}

impl Failure {
    /// A failure of a kind. Nothing from outside breaks the lines of ours.
    #[must_use]
    pub fn new(kind: FailureKind, text: impl fmt::Display) -> Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            kind,
            text: text.to_string().chars().map(plain).take(LONGEST).collect(),
            retry_after: None,
        }
    }

    /// A reload has made it needless.
    #[must_use]
    pub fn given_up() -> Self {
        Self::new(FailureKind::GivenUp, "a reload has made the order needless")
    }

    /// A fault of our own.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(FailureKind::Internal, "internal error; please report it")
    }

    /// The CA has not answered.
    #[must_use]
    pub fn of_transport(error: &TransportError) -> Self {
        let kind = match error {
            TransportError::Url(_) => FailureKind::Malformed,
            TransportError::Silent(_) => FailureKind::Silent,
            TransportError::Name(_) | TransportError::Http { .. } | TransportError::Status { .. } => {
                FailureKind::Unreachable
            }
        };
        Self::new(kind, error)
    }

    /// The same, and how long the CA wants to be left alone.
    #[must_use]
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// What a problem document says.
    #[must_use]
    pub fn of_problem(problem: &Problem) -> Self {
        let kind = match problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(URN)) {
            Some("rateLimited") => FailureKind::RateLimited,
            Some("accountDoesNotExist" | "externalAccountRequired") => FailureKind::Account,
            _ => FailureKind::Refused,
        };
        Self::new(kind, words(problem))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(problem) => Self::of_problem(problem),
            Error::Other(other) => match other.downcast_ref::<TransportError>() {
                Some(error) => Self::of_transport(error),
                None => Self::new(FailureKind::Malformed, other),
            },
            _ => Self::new(FailureKind::Malformed, error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a CA says that it does not know our account.
#[must_use]
pub fn is_unknown_account(error: &Error) -> bool {
    is_of_kind(error, "accountDoesNotExist")
}

/// Whether a CA says that the certificate which an order would replace has been replaced.
#[must_use]
pub fn is_replaced_already(error: &Error) -> bool {
    is_of_kind(error, "alreadyReplaced")
}

/// Whether a CA does not let our account in: it was deactivated, or revoked.
#[must_use]
pub fn is_unauthorized(error: &Error) -> bool {
    is_of_kind(error, "unauthorized")
}

fn is_of_kind(error: &Error, kind: &str) -> bool {
    let Error::Api(problem) = error else { return false };
    (problem.r#type.as_deref()).is_some_and(|of| of.strip_prefix(URN) == Some(kind))
}

/// What a problem document says, with the parts that are about single names.
fn words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix(URN).unwrap_or(kind);
    let mut text = match (problem.detail.as_deref(), kind) {
        (Some(detail), "") => detail.to_owned(),
        (Some(detail), kind) => format!("{detail} ({kind})"),
        (None, "") => match problem.status {
            Some(status) => format!("the CA refuses it with status {status}"),
            None => "the CA refuses it without a word".to_owned(),
        },
        (None, kind) => kind.to_owned(),
    };
    for part in &problem.subproblems {
        let detail = part.detail.as_deref().unwrap_or_default();
        match &part.identifier {
            Some(instant_acme::Identifier::Dns(name)) => text.push_str(&format!("; {name}: {detail}")),
            _ => text.push_str(&format!("; {detail}")),
        }
    }
    text
}
