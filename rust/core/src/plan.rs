//! From texts' lengths to micro-batches under a token budget.

/// Sequences laid one after the other, without padding.
///
/// Sequence `i` is tokens `offsets[i]..offsets[i + 1]` (`cu_seqlens` elsewhere); `offsets` starts with
/// 0 and has one entry more than there are sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each token.
    pub type_ids: Vec<u32>,
    /// Position of each token within its sequence.
    pub positions: Vec<u32>,
    /// Where each sequence starts.
    pub offsets: Vec<usize>,
}
