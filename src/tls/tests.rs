//! The room against a client of rustls, in memory, with certificates made on the spot.

mod certificates;
mod choice;
mod clients;
mod findings;
mod garbage;
pub(crate) mod lab;
mod ocsp;
mod resumption;
mod servers;
mod swap;
