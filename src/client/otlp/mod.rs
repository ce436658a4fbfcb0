//! Exporting by OTLP over HTTP, in protobuf.
//!
//! Protobuf and not JSON, for every program that takes OTLP takes it, and some take nothing else (such as Elastic's APM
//! Server). The messages are few and flat, so that they are written by hand ([`wire`], [`message`]); [`retry`] knows what an answer
//! means and when to try again.

pub mod message;
mod post;
pub mod retry;
pub mod wire;

pub use message::Resource;
pub use post::{Door, Outcome, post};
