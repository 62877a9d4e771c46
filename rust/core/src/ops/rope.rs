//! Rotary position embedding (Su et al. 2021), in the form that rotates the first half of a head against the
//! second, as GPT-NeoX and Hugging Face do.

use std::sync::{Arc, PoisonError, RwLock};

/// The rotations of a model's heads. Shared by its layers; cosines and sines are computed as far as texts
/// have needed them.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f32>,
    table: RwLock<Arc<Rotations>>,
}

/// Cosines and sines, `[positions, head_dim / 2]` each.
#[derive(Debug, Default)]
pub(crate) struct Rotations {
    pub(crate) half: usize,
    pub(crate) positions: usize,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

impl Rope {
    /// Pair `i` turns by `theta^(-2i / head_dim)` from one position to the next.
    pub(crate) fn new(theta: f32, head_dim: usize) -> Self {
        let exponent = |i: usize| (2 * i) as f32 / head_dim as f32;
        // In single precision, as in the models' training.
        let frequencies = (0..head_dim / 2).map(|i| 1.0 / theta.powf(exponent(i))).collect();
        Self { frequencies, table: RwLock::default() }
    }

    /// Rotations of at least so many positions.
    pub(crate) fn rotations(&self, positions: usize) -> Arc<Rotations> {
        let known = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        if known.positions >= positions {
            return known;
        }
        let longer = Arc::new(self.compute(positions.next_power_of_two()));
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.positions < longer.positions {
            *table = Arc::clone(&longer);
        }
        longer
    }

    fn compute(&self, positions: usize) -> Rotations {
        let half = self.frequencies.len();
        let angles = (0..positions).flat_map(|position| {
            self.frequencies.iter().map(move |&f| position as f64 * f64::from(f))
        });
        let (mut cos, mut sin) =
            (Vec::with_capacity(positions * half), Vec::with_capacity(positions * half));
        for angle in angles {
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
        Rotations { half, positions, cos, sin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_those_of_the_definition_and_grow() {
        let rope = Rope::new(1000.0, 6);
        assert_eq!(rope.rotations(3).positions, 4);
        let rotations = rope.rotations(9);
        assert_eq!((rotations.half, rotations.positions), (3, 16));
        let angle = 7.0 / 1000.0_f64.powf(2.0 / 3.0);
        assert!((f64::from(rotations.cos[7 * 3 + 2]) - angle.cos()).abs() < 1e-6);
        assert!((f64::from(rotations.sin[7 * 3 + 2]) - angle.sin()).abs() < 1e-6);
        assert_eq!(rotations.cos[0].to_bits(), 1.0_f32.to_bits());
        assert_eq!(rope.rotations(2).positions, 16);
    }
}
