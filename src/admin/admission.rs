//! Answers that go on for as long as whoever asked would be let in.

use std::{fmt, sync::Arc};

/// Whether somebody who was let in still would be.
#[derive(Clone)]
pub struct Admission(Arc<dyn Fn() -> bool + Send + Sync>);

impl Admission {
    /// As long as this says so.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        (self.0)()
    }
}

/// As long as the connection lives.
impl Default for Admission {
    fn default() -> Self {
        Self::new(|| true)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}
