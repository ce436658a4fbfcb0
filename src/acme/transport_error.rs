//! Why a CA has not answered.

use std::time::Duration;

use hyper::StatusCode;

use crate::client::http::HttpError;

/// How long one request may take with its answer.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer, or none of a CA.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Its URL cannot be asked.
    #[error("the CA names {0}, which is no URL that can be asked by https")]
    Url(String),
    /// Its name cannot be looked up.
    #[error("{0}")]
    Name(String),
    /// The exchange failed.
    #[error("{host}: {error}")]
    Http {
        /// With whom.
        host: String,
        /// How.
        error: HttpError,
    },
    /// It took too long.
    #[error("{0} has not answered within {seconds} s", seconds = TIMEOUT.as_secs())]
    Silent(String),
    /// It refuses in other words than those of a CA.
    #[error("{host} answers {status}: {excerpt}")]
    Status {
        /// Who.
        host: String,
        /// How.
        status: StatusCode,
        /// The beginning of what it says.
        excerpt: String,
    },
}
