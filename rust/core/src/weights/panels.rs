//! The layout that the CPU kernels read: panels of 16 output features.
//!
//! A matrix `W[out_features, in_features]` is cut into panels of [`WIDTH`] rows. Within panel `p` the
//! element for input feature `k` and output feature `16 p + j` stands at `(p * in_features + k) * 16 + j`:
//! for each input feature, 16 weights side by side, which is one step of a matrix kernel. Rows past
//! `out_features` in the last panel are zero.

/// Output features in a panel.
pub const WIDTH: usize = 16;
