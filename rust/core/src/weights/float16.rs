//! Half-precision numbers in arithmetic that compilers vectorise.

/// The value of an IEEE half-precision number.
#[inline(always)]
pub(crate) fn half_to_float(bits: u16) -> f32 {
    /// Makes up for the difference between the two exponents' biases; exact, also for subnormals.
    const TWO_TO_112: f32 = 5.192_297e33;
    let bits = u32::from(bits);
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let is_finite = bits & 0x7c00 != 0x7c00;
    let magnitude = if is_finite { finite } else { magnitude | 0x7f80_0000 };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_half_is_the_number_that_it_stands_for() {
        for bits in 0..=u16::MAX {
            let expected = f16::from_bits(bits).to_f32();
            let found = half_to_float(bits);
            assert!(found == expected || found.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }
}
