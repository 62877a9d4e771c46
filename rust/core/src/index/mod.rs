//! Exact search: the vectors of some files that are most similar to queries.
//!
//! [`file`] maps a file of vectors and checks it, [`write`] makes one. [`search`] divides the rows among threads.
//! Each scans its rows in single precision ([`crate::ops::cpu::scan`]), keeps those that [`bound`] cannot
//! exclude, computes their similarity in double precision ([`exact`]) and holds the best of them ([`top`]).
//! [`keep`] is which rows are searched at all.

mod bound;
mod exact;
mod file;
mod keep;
mod search;
#[cfg(test)]
mod tests;
mod top;
mod write;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

pub use file::VectorFile;
pub use search::{Neighbours, search_vectors};

/// How similar two vectors are; more is more similar.
///
/// ```
/// use arrowembed::Metric;
/// assert_eq!("dot".parse::<Metric>()?, Metric::Dot);
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine of the angle between them; 0 where one of them is zero.
    Cosine,
    /// Dot product.
    Dot,
    /// Negative Euclidean distance.
    Euclidean,
}

impl Metric {
    const ALL: [Self; 3] = [Self::Cosine, Self::Dot, Self::Euclidean];

    /// The name used in arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
        }
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("metric", format!("is {name:?}, allowed are {names}"))
        })
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is searched for.
///
/// ```
/// use arrowembed::{Metric, SearchOptions};
/// let first_three = [0b111_u8];
/// let options = SearchOptions::new(10).metric(Metric::Euclidean).keep(vec![Some(&first_three)]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOptions<'a> {
    pub(crate) k: usize,
    pub(crate) metric: Metric,
    pub(crate) keep: Option<Vec<Option<&'a [u8]>>>,
}

impl<'a> SearchOptions<'a> {
    /// The `k` most similar vectors by their cosine.
    pub fn new(k: usize) -> Self {
        Self { k, metric: Metric::Cosine, keep: None }
    }

    /// What is called similar.
    #[must_use]
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// For each file which rows are searched: a bit for each, 1 where it is, the least significant first, as
    /// Arrow's bitmaps have them. `None` is all.
    #[must_use]
    pub fn keep(mut self, keep: Vec<Option<&'a [u8]>>) -> Self {
        self.keep = Some(keep);
        self
    }
}
