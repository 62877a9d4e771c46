//! The parts of an Arrow file, checked before anything in them is believed.

use arrow_buffer::Buffer;
use arrow_ipc::{Block, MetadataVersion, RecordBatch, root_as_message};

const MAGIC: &[u8; 6] = b"ARROW1";
/// What stands before the footer's end: its length and the magic.
pub(super) const TRAILER: usize = 4 + MAGIC.len();
/// Continuation marker and length before each message.
const PREFIX: usize = 8;

/// The footer's bytes and where in the file they begin.
pub(crate) fn footer(file: &Buffer) -> Result<(Buffer, usize), &'static str> {
    if !file.starts_with(MAGIC) {
        return Err("it does not begin as an Arrow file");
    }
    let (body, trailer) =
        file.split_last_chunk::<TRAILER>().ok_or("it is too short for an Arrow file")?;
    let [a, b, c, d, magic @ ..] = trailer;
    if magic != MAGIC {
        return Err("it does not end as an Arrow file; it was cut short");
    }
    let start = usize::try_from(i32::from_le_bytes([*a, *b, *c, *d]))
        .ok()
        .and_then(|length| body.len().checked_sub(length))
        .filter(|start| *start >= MAGIC.len())
        .ok_or("its footer is longer than the file")?;
    // Copied, because the flatbuffer must stand aligned in memory, which nothing in the file promises. It is
    // small.
    Ok((Buffer::from(&body[start..]), start))
}

/// The bytes of a record, message and body, which must end before the footer.
pub(crate) fn slice_block(
    file: &Buffer,
    block: &Block,
    footer_start: usize,
) -> Result<Buffer, String> {
    let range = || {
        let offset = usize::try_from(block.offset()).ok()?;
        let metadata = usize::try_from(block.metaDataLength()).ok()?;
        let length = metadata.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
        let end = offset.checked_add(length)?;
        (metadata > PREFIX && end <= footer_start).then_some((offset, length))
    };
    let (offset, length) = range()
        .ok_or_else(|| format!("the record of {block:?} lies outside of it or has no header"))?;
    Ok(file.slice_with_length(offset, length))
}

/// The message and the body of a record.
pub(crate) fn record<'a>(
    block: &Block,
    bytes: &'a [u8],
    version: MetadataVersion,
) -> Result<(RecordBatch<'a>, &'a [u8]), String> {
    let (metadata, body) =
        bytes.split_at_checked(block.metaDataLength() as usize).ok_or("is cut short")?;
    let (prefix, message) = metadata.split_at_checked(PREFIX).ok_or("has no header")?;
    if !prefix.starts_with(&[0xff; 4]) {
        return Err("does not begin with a continuation marker".to_owned());
    }
    let message = root_as_message(message).map_err(|e| format!("is damaged: {e}"))?;
    if message.version() != version {
        return Err("has another version than the footer".to_owned());
    }
    let record = message.header_as_record_batch().ok_or("is not a record batch")?;
    Ok((record, body))
}
