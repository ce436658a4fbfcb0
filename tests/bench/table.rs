//! Ratios with their spread, and the table.

use std::fmt::{self, Write as _};

use crate::{
    rows::{Cell, Row},
    subjects::Subject,
};

/// Our cells of one row, each between two of one peer's.
pub struct Comparison {
    row: Row,
    subject: Subject,
    peer: Subject,
    /// Our cells.
    pub ours: Vec<Cell>,
    /// The peer's: one more.
    pub theirs: Vec<Cell>,
}

/// Median and range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

impl Comparison {
    /// Without cells yet.
    pub fn new(row: Row, subject: Subject, peer: Subject) -> Self {
        Self {
            row,
            subject,
            peer,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    /// The figures in one line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{}: {} {:.3}, {} {:.3}, cost {}",
            self.row.title(),
            self.subject.label(),
            median(&self.ours),
            self.peer.label(),
            median(&self.theirs),
            Spread::of(self.ratios(|cell| Some(cell.cost))),
        );
        for (name, ratios) in [
            ("throughput", self.ratios(|cell| cell.rate)),
            ("p99", self.ratios(|cell| cell.p99)),
        ] {
            if !ratios.is_empty() {
                let _ = write!(line, ", {name} {}", Spread::of(ratios));
            }
        }
        line
    }

    /// Ours over the mean of the peer's cells before and after.
    fn ratios(&self, figure: impl Fn(&Cell) -> Option<f64>) -> Vec<f64> {
        self.ours
            .iter()
            .zip(self.theirs.windows(2))
            .filter_map(|(ours, theirs)| {
                let around = (figure(&theirs[0])? + figure(&theirs[1])?) / 2.0;
                Some(figure(ours)? / around)
            })
            .collect()
    }
}

fn median(cells: &[Cell]) -> f64 {
    Spread::of(cells.iter().map(|cell| cell.cost).collect()).median
}

/// All comparisons as a Markdown table. A cost ratio below 1 means that ours is cheaper.
pub fn markdown(comparisons: &[Comparison]) -> String {
    let mut text = String::from(
        "| work | ours | its cost | peer | its cost | cost ratio (spread) | throughput ratio | p99 ratio |\n|---|---|---|---|---|---|---|---|\n",
    );
    for comparison in comparisons {
        let or_dash = |ratios: Vec<f64>| {
            if ratios.is_empty() {
                "–".to_owned()
            } else {
                Spread::of(ratios).to_string()
            }
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.3} | {} | {:.3} | {} | {} | {} |",
            comparison.row.title(),
            comparison.subject.label(),
            median(&comparison.ours),
            comparison.peer.label(),
            median(&comparison.theirs),
            Spread::of(comparison.ratios(|cell| Some(cell.cost))),
            or_dash(comparison.ratios(|cell| cell.rate)),
            or_dash(comparison.ratios(|cell| cell.p99)),
        );
    }
    text
}
