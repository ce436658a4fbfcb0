//! Answers in place of the routes'.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse as _, Response},
};

use crate::admin::views::Problem;

/// An answer in place of the routes'.
pub struct Refusal {
    pub problem: Problem,
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Problem::new(status, message).into()
    }

    pub fn unauthorized(challenge: &'static str, message: &str) -> Self {
        Self {
            problem: Problem::new(StatusCode::UNAUTHORIZED, message),
            header: Some((WWW_AUTHENTICATE, HeaderValue::from_static(challenge))),
        }
    }

    pub fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        response.headers_mut().extend(self.header);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            header: None,
        }
    }
}
