//! What a model file's Arrow schema and messages must look like before arrow-ipc decodes them.

use arrow_buffer::Buffer;
use arrow_ipc::{Block, CompressionType, MetadataVersion, RecordBatch};
use arrow_schema::{DataType, Field, Schema};

use crate::weights::ipc;
use crate::weights::table::schema;

/// Nodes of a record: six columns and the items of `shape`.
const NODES: usize = 7;
/// The node that holds the items of `shape`.
const SHAPE_ITEMS: usize = 2;
/// Size of the elements of each buffer of a record. Strings and bytes have validity, offsets and data;
/// lists validity, offsets and their items; numbers validity and values.
const WIDTHS: [u64; 18] = [
    1, 4, 1, // layer_name
    1, 4, 1, 4, // shape and its items
    1, 4, 1, // dtype
    1, 8, 1, // data
    1, 8, // num_params
    1, 4, 1, // layout
];
/// The buffer that holds the tensors' elements.
const PAYLOAD: usize = 12;
/// Most tensors in one record, and most dimensions of all of them; keeps sums from overflowing.
const MOST_ROWS: i64 = 1 << 16;
const MOST_DIMENSIONS: i64 = MOST_ROWS * 16;
/// Largest size of a compressed buffer other than the payload.
const MOST_SMALL_BYTES: u64 = 16 << 20;

/// The columns must be a model file's; the name of a list's items differs between writers.
pub(super) fn check_schema(stored: &Schema) -> Result<(), String> {
    let same_column = |(stored, expected): (&Field, &Field)| {
        let same_type = match (stored.data_type(), expected.data_type()) {
            (DataType::List(a), DataType::List(b)) => a.data_type() == b.data_type(),
            (a, b) => a == b,
        };
        stored.name() == expected.name() && same_type
    };
    let expected = schema();
    let (stored, expected) = (stored.fields().iter(), expected.fields().iter());
    if stored.len() == expected.len()
        && stored.clone().map(AsRef::as_ref).zip(expected.map(AsRef::as_ref)).all(same_column)
    {
        return Ok(());
    }
    let columns: Vec<_> = stored.map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
    Err(format!("its columns are ({}), not those of a model file", columns.join(", ")))
}

/// Checks all that arrow-ipc's decoder takes on trust; returns whether the record is compressed.
pub(super) fn check_message(
    block: &Block,
    bytes: &Buffer,
    version: MetadataVersion,
) -> Result<bool, String> {
    let (record, body) = ipc::record(block, bytes, version)?;
    check_nodes(record)?;
    let codec = record.compression().map(|compression| compression.codec());
    check_buffers(record, body, codec)?;
    Ok(codec.is_some())
}

fn check_nodes(record: RecordBatch<'_>) -> Result<(), &'static str> {
    if !(0..=MOST_ROWS).contains(&record.length()) {
        return Err("has an implausible number of rows");
    }
    let nodes = record.nodes().ok_or("has no nodes")?;
    if nodes.len() != NODES {
        return Err("has another number of columns than the schema");
    }
    for (i, node) in nodes.iter().enumerate() {
        let length_fits = if i == SHAPE_ITEMS {
            (0..=MOST_DIMENSIONS).contains(&node.length())
        } else {
            node.length() == record.length()
        };
        if !length_fits {
            return Err("has columns of unequal length");
        }
        if node.null_count() != 0 {
            return Err("has nulls");
        }
    }
    Ok(())
}

fn check_buffers(
    record: RecordBatch<'_>,
    body: &[u8],
    codec: Option<CompressionType>,
) -> Result<(), &'static str> {
    let buffers = record.buffers().ok_or("has no buffers")?;
    if buffers.len() != WIDTHS.len() {
        return Err("has another number of buffers than the schema");
    }
    for (i, (buffer, width)) in buffers.iter().zip(WIDTHS).enumerate() {
        let stored = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok())
            .and_then(|(start, length)| body.get(start..start.checked_add(length)?))
            .ok_or("has a buffer outside of its body")?;
        // The decoder asserts of numbers that they are aligned and that there is a whole number.
        if !(stored.as_ptr() as usize).is_multiple_of(8) {
            return Err("has a buffer that is not 8-byte aligned");
        }
        let length = match codec {
            Some(codec) => claimed_len(stored, codec, i == PAYLOAD)?,
            None => stored.len() as u64,
        };
        if !length.is_multiple_of(width) {
            return Err("has a buffer that ends within an element");
        }
    }
    Ok(())
}

/// The length that a compressed buffer claims to have, if that is plausible: the decoder allocates it.
///
/// LZ4 shrinks at most 255 times, and a Zstandard block of 128 KiB to 4 bytes at the least.
fn claimed_len(
    stored: &[u8],
    codec: CompressionType,
    is_payload: bool,
) -> Result<u64, &'static str> {
    let ratio = match codec {
        CompressionType::LZ4_FRAME => 255,
        CompressionType::ZSTD => 1 << 15,
        _ => return Err("has an unknown compression"),
    };
    let Some((claim, content)) = stored.split_first_chunk() else {
        return if stored.is_empty() { Ok(0) } else { Err("has a buffer without its length") };
    };
    let claim = match i64::from_le_bytes(*claim) {
        // Stored uncompressed.
        -1 => return Ok(content.len() as u64),
        claim => u64::try_from(claim).map_err(|_| "has a buffer of negative length")?,
    };
    if claim > (content.len() as u64).saturating_mul(ratio)
        || (!is_payload && claim > MOST_SMALL_BYTES)
    {
        return Err("has a compressed buffer of implausible size");
    }
    // Asked for here, where it can fail; the decoder's allocation would end the process.
    usize::try_from(claim)
        .ok()
        .and_then(|claim| Vec::<u8>::new().try_reserve_exact(claim).ok())
        .ok_or("has a buffer larger than memory")?;
    Ok(claim)
}
