//! Texts that occur more than once in a call.

use std::collections::HashMap;

/// Which texts of a call are the same, so that each is computed once.
pub(crate) struct Repeated {
    /// For each position the first one with the same text.
    pub(crate) first: Vec<usize>,
    /// For each first position how often its text occurs.
    pub(crate) times: Vec<usize>,
}

impl Repeated {
    pub(crate) fn find<S: AsRef<str>>(texts: &[S]) -> Self {
        let mut seen = HashMap::with_capacity(texts.len());
        let mut times = vec![0; texts.len()];
        let first = texts.iter().enumerate().map(|(position, text)| {
            let first = *seen.entry(text.as_ref()).or_insert(position);
            times[first] += 1;
            first
        });
        Self { first: first.collect(), times }
    }

    /// Copies the row of each first one, `dim` long, to the others with the same text.
    pub(crate) fn copy_rows(&self, rows: &mut [f32], dim: usize) {
        for (position, &first) in self.first.iter().enumerate() {
            if first != position {
                rows.copy_within(first * dim..(first + 1) * dim, position * dim);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_texts_stands_for_all() {
        let repeated = Repeated::find(&["a", "b", "a", "a", "c"]);
        assert_eq!(repeated.first, [0, 1, 0, 0, 4]);
        assert_eq!(repeated.times, [3, 1, 0, 0, 1]);
    }
}
