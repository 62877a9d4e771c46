//! Functions of sixteen floats.

use super::simd::Simd;
use crate::ops::Activation;

/// `c[0] + c[1] x + c[2] x² + …` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::V, c: [f32; N]) -> S::V {
    let mut sum = simd.splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = simd.mul_add(sum, x, simd.splat(c[i]));
    }
    sum
}

/// 2ˣ, with a relative error below 2e-7; 0 below 2⁻¹²⁶ and 2¹²⁷ above it.
///
/// x = n + f with whole n and |f| ≤ ½; 2ᶠ is a polynomial fitted for the least relative error.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::V) -> S::V {
    const TWO_TO_F: [f32; 7] = [
        1.0,
        std::f32::consts::LN_2,
        2.402_264_8e-1,
        5.550_332_4e-2,
        9.618_437e-3,
        1.339_887_5e-3,
        1.535_336_2e-4,
    ];
    let x = simd.min(simd.splat(127.0), simd.max(simd.splat(-127.0), x));
    let n = simd.round(x);
    let two_to_f = polynomial(simd, simd.sub(x, n), TWO_TO_F);
    // n = -127 gives the exponent field 0, that is zero.
    simd.mul(two_to_f, simd.exp2_of_integer(n))
}

/// eˣ, with a relative error below 1e-6 for |x| < 80.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    exp2(simd, simd.mul(x, simd.splat(std::f32::consts::LOG2_E)))
}

/// The error function of `z`, with an absolute error below 3e-7.
///
/// z·P(z²)/Q(z²) fitted for the least absolute error on |z| ≤ 3.92, where erf reaches 1 in single
/// precision.
#[inline(always)]
fn erf<S: Simd>(simd: S, z: S::V) -> S::V {
    const P: [f32; 6] = [
        std::f32::consts::FRAC_2_SQRT_PI,
        1.927_645_7e-1,
        5.306_054e-2,
        3.868_346_8e-3,
        2.874_795_2e-4,
        2.034_727e-6,
    ];
    const Q: [f32; 6] =
        [1.0, 5.041_648e-1, 1.150_848_2e-1, 1.517_233_5e-2, 1.188_119_3e-3, 3.807_056_4e-5];
    let z = simd.min(simd.splat(3.92), simd.max(simd.splat(-3.92), z));
    let t = simd.mul(z, z);
    let erf = simd.quotient(simd.mul(z, polynomial(simd, t, P)), polynomial(simd, t, Q));
    simd.min(simd.splat(1.0), simd.max(simd.splat(-1.0), erf))
}

/// One of the [`Activation`]s.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, activation: Activation, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    match activation {
        Activation::Gelu => {
            let half_x = simd.mul(simd.splat(0.5), x);
            let erf = erf(simd, simd.mul(x, simd.splat(std::f32::consts::FRAC_1_SQRT_2)));
            simd.mul_add(half_x, erf, half_x)
        }
        // 0.5 x (1 + tanh(u)) = x·sigmoid(2u) with u = sqrt(2/π) (x + 0.044715 x³).
        Activation::GeluTanh => {
            let inner = simd.mul_add(simd.splat(0.044_715), simd.mul(x, x), one);
            let two_u = simd.mul(simd.mul(x, inner), simd.splat(1.595_769));
            times_sigmoid(simd, x, two_u)
        }
        Activation::Relu => simd.max(simd.splat(0.0), x),
        Activation::Silu => times_sigmoid(simd, x, x),
    }
}

/// `x / (1 + exp(-y))`
#[inline(always)]
fn times_sigmoid<S: Simd>(simd: S, x: S::V, y: S::V) -> S::V {
    let exp = exp(simd, simd.sub(simd.splat(0.0), y));
    simd.div(x, simd.add(simd.splat(1.0), exp))
}
