//! What has happened: the last events of the log, for whoever asks or listens.
//!
//! ```text
//! any thread ── event of the log ──► EventLog (the last 1,024, and how many there were of each name)
//!                                       ├─► list ─────────► GET /v1/events
//!                                       └─► news ─► stream ► GET /v1/events, text/event-stream
//! ```
//! Names and fields are those of the log. Numbers grow over restarts, so that who listened before goes on where he was.

mod log;
mod stream;

pub use log::{EventLog, EventRecord, Found, Level};
pub use stream::{EventStream, Streams};
