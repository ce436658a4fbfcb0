//! What a connection says before its payload: PROXY headers read and written, ClientHello read. Pure.
//!
//! ```text
//!                                      ┌─ More: read on from the socket, ask again
//! everything received so far ─ read ─► ├─ Done: what it says
//!                                      └─ Refused: it will never be one
//! ```
//! The readers are given everything that has been received, which only grows, and consume nothing: a ClientHello is
//! forwarded or goes to TLS afterwards, and of a PROXY header its length is told. However the bytes come in pieces, the
//! answer is the same, and it comes with the first byte that decides. Nobody need keep more than [`MAX_HELLO_BYTES`] or
//! [`proxy::MAX_HEADER_BYTES`] of them, for there is an answer by then.

mod client_hello;
mod cursor;
pub mod proxy;
mod records;
#[cfg(test)]
pub(crate) mod tests;

pub use client_hello::{Alpn, ClientHello, HelloRefusal, MAX_HOST_NAME_BYTES};
pub use records::{HelloReader, MAX_HELLO_BYTES, MAX_HELLO_MESSAGE_BYTES};

/// How far a reader has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T, E> {
    /// Not everything is there.
    More,
    /// Everything is there.
    Done(T),
    /// No further byte can make it right.
    Refused(E),
}
