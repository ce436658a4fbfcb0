//! Metrics for Prometheus, made of the published status and the counters whenever somebody asks.
//!
//! ```text
//! Status, Live ─► Scrape ─► families (a table) ─► samples ─┬► text, a family at a time
//!                                                          └► data points for OTLP, in parts
//! ```
//! Nothing is kept between scrapes, and neither the control loop nor those who move traffic are asked. Labels are names of the
//! configuration and words of closed sets; histograms are per frontend and backend, of servers there are sums, so that
//! thousands of servers remain a few dozen lines each.

mod backends;
mod exports;
mod family;
mod frontends;
mod packet;
#[cfg(feature = "otlp")]
mod points;
mod process;
mod scrape;
mod servers;
mod sources;
mod text;

pub use family::{Family, Scope};
#[cfg(feature = "otlp")]
pub use points::Parts;
pub use scrape::Scrape;
pub use text::{Format, ScrapeBody};

/// Every family, in the order in which they are told.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [
        process::FAMILIES,
        exports::FAMILIES,
        frontends::FAMILIES,
        backends::FAMILIES,
        servers::FAMILIES,
        sources::FAMILIES,
        packet::FAMILIES,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;
