//! Reading a header's numbers and strings one after the other.

/// What was read, or what is wrong with it.
pub(super) type Read<T> = Result<T, String>;

/// A place in bytes that come from outside.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| {
            format!("it ends at byte {}, in the middle of its header", self.bytes.len())
        })?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        // The length is that of the array, so the default is never taken.
        self.take(N).map(|bytes| bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// How many things follow, of which each takes at least `size` bytes; a count that the rest of
    /// the file cannot hold never reserves memory.
    pub(super) fn count(&mut self, size: usize, what: &str) -> Read<usize> {
        let count = self.u64()?;
        let rest = self.bytes.len() - self.at;
        match usize::try_from(count) {
            Ok(count) if count <= rest / size.max(1) => Ok(count),
            _ => Err(format!("it announces {count} {what}, more than its size allows")),
        }
    }

    pub(super) fn string(&mut self) -> Read<&'a str> {
        let at = self.at;
        let length = self.count(1, "bytes of text")?;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| format!("the text at byte {at} is not UTF-8"))
    }
}
