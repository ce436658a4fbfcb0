//! Certificates that are ordered from a CA, and renewed, by themselves (ACME, RFC 8555).
//!
//! ```text
//! Planner ─ Step ─► order, advice ─► CA            one at a time
//!    ▲                  │  └─ proofs ─► TLS frontends, HTTP listener, command ◄── the CA looks
//!    └──── what came of it: a certificate, a time to renew it, or a Failure
//! ```
//! When what is asked for is decided by [`plan`], which is pure; [`order`] carries an order out with a CA, [`advice`] asks it
//! when a certificate had best be renewed. A CA that fails is asked again, ever more rarely, and nothing else depends on it.

mod account;
pub mod advice;
mod certificate;
mod failure;
pub mod order;
pub mod plan;
mod proofs;
mod transport;
mod transport_error;

use std::{future::Future, path::PathBuf, pin::Pin};

pub use account::account_file;
pub use certificate::{Bundle, bundle_file};
pub use failure::{Failure, FailureKind};
pub use proofs::{HttpTokens, Proofs};

use crate::{base::DnsProof, config::Command};

/// Resolves to what was asked for, or why there is nothing.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// What only the rest of the process can do.
pub trait Host: Send + Sync {
    /// Reads a file that the configuration names.
    fn read(&self, path: PathBuf) -> Answer<Vec<u8>>;

    /// Has a command of the configuration change the DNS.
    fn prove(&self, hook: Command, proof: DnsProof) -> Answer<()>;

    /// Keeps an account over restarts, under the name of a file.
    fn keep_account(&self, file: String, text: String) -> Answer<()>;
}
