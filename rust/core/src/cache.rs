//! Vectors of texts that were seen before.
//!
//! A least-recently-used table from a text, with everything else that changes its vector, to that
//! vector and to what the text's statistics need.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::pool::{Normalize, Pooling};
use crate::process::PerProcess;
use crate::tokenize::Tokens;

/// How much a cache may hold; `None` is no limit, 0 switches the cache off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Most entries.
    pub entries: Option<usize>,
    /// Most bytes of keys and vectors together.
    pub bytes: Option<usize>,
}

impl CacheLimits {
    /// No cache.
    pub const OFF: Self = Self { entries: Some(0), bytes: None };
}

impl Default for CacheLimits {
    /// 10,000 entries, of any size.
    fn default() -> Self {
        Self { entries: Some(10_000), bytes: None }
    }
}

/// What a cache holds and how it has served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheInfo {
    /// Entries held.
    pub entries: usize,
    /// Bytes of keys and vectors held, with the table's own share of each entry.
    pub bytes: usize,
    /// Texts whose vector was there.
    pub hits: u64,
    /// Texts whose vector was not there.
    pub misses: u64,
    /// The limit of entries.
    pub max_entries: Option<usize>,
    /// The limit of bytes.
    pub max_bytes: Option<usize>,
}

/// Everything besides the text that changes a vector of one engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub pooling: Pooling,
    pub normalize: Normalize,
    pub dim: usize,
    /// Tokens of the prompt that pooling skips.
    pub skip: usize,
}

/// A text's vector and lengths.
#[derive(Debug)]
pub(crate) struct Entry {
    pub vector: Box<[f32]>,
    pub tokens: usize,
    /// Number of tokens before truncation.
    pub full_length: usize,
}

impl Entry {
    pub(crate) fn new(vector: &[f32], tokens: &Tokens) -> Self {
        Self { vector: vector.into(), tokens: tokens.ids.len(), full_length: tokens.full_length }
    }
}

/// What an entry costs beside its key and vector: hash table, links, allocator.
const OVERHEAD: usize = 128;

/// The cache of one engine, for all threads; a forked child starts with an empty one.
pub(crate) struct Cache {
    table: PerProcess<Mutex<Table>>,
    limits: CacheLimits,
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self { table: PerProcess::new(), limits }
    }

    /// The table, locked, or `None` if the cache is off. Locked once for many texts.
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, Table>> {
        let off = self.limits.entries == Some(0) || self.limits.bytes == Some(0);
        (!off).then(|| {
            self.table
                .get_or_init(|| Mutex::new(Table::new(self.limits)))
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
    }

    pub(crate) fn info(&self) -> CacheInfo {
        let CacheLimits { entries: max_entries, bytes: max_bytes } = self.limits;
        let Some(table) = self.lock() else {
            return CacheInfo { max_entries, max_bytes, ..CacheInfo::default() };
        };
        CacheInfo {
            entries: table.entries.len(),
            bytes: table.bytes,
            hits: table.hits,
            misses: table.misses,
            max_entries,
            max_bytes,
        }
    }

    /// Forgets all entries; the counts of hits and misses stay.
    pub(crate) fn clear(&self) {
        if let Some(mut table) = self.lock() {
            table.entries.clear();
            table.bytes = 0;
        }
    }
}

pub(crate) struct Table {
    entries: LruCache<Box<[u8]>, Entry>,
    limits: CacheLimits,
    bytes: usize,
    hits: u64,
    misses: u64,
    /// Reused for looking up, so that a look-up allocates nothing.
    key: Vec<u8>,
}

impl Table {
    fn new(limits: CacheLimits) -> Self {
        // Bounded by `insert`; a bounded table would reserve its memory at once.
        let entries = LruCache::unbounded();
        Self { entries, limits, bytes: 0, hits: 0, misses: 0, key: Vec::new() }
    }

    /// The entry of a text that occurs `times` in a call.
    pub(crate) fn get(
        &mut self,
        variant: Variant,
        prompt: &str,
        text: &str,
        times: usize,
    ) -> Option<&Entry> {
        write_key(&mut self.key, variant, prompt, text);
        let entry = self.entries.get(self.key.as_slice());
        *if entry.is_some() { &mut self.hits } else { &mut self.misses } += times as u64;
        entry
    }

    /// Adds an entry and drops the least recently used ones that no longer fit.
    pub(crate) fn insert(&mut self, variant: Variant, prompt: &str, text: &str, entry: Entry) {
        write_key(&mut self.key, variant, prompt, text);
        let key: Box<[u8]> = self.key.as_slice().into();
        self.bytes += size(&key, &entry);
        if let Some((key, replaced)) = self.entries.push(key, entry) {
            self.bytes -= size(&key, &replaced);
        }
        while self.limits.entries.is_some_and(|most| self.entries.len() > most)
            || self.limits.bytes.is_some_and(|most| self.bytes > most)
        {
            let Some((key, dropped)) = self.entries.pop_lru() else { break };
            self.bytes -= size(&key, &dropped);
        }
    }
}

fn size(key: &[u8], entry: &Entry) -> usize {
    OVERHEAD + key.len() + size_of_val(&*entry.vector)
}

/// The variant in a fixed number of bytes, then the text as the model sees it.
fn write_key(key: &mut Vec<u8>, variant: Variant, prompt: &str, text: &str) {
    let (normalize, p) = match variant.normalize {
        Normalize::None => (0, 0.0),
        Normalize::L2 => (1, 0.0),
        Normalize::MaxAbs => (2, 0.0),
        Normalize::P(p) => (3, p),
    };
    key.clear();
    key.extend([variant.pooling as u8, normalize]);
    key.extend(p.to_bits().to_le_bytes());
    key.extend(variant.dim.to_le_bytes());
    key.extend(variant.skip.to_le_bytes());
    key.extend(prompt.as_bytes());
    key.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Variant =
        Variant { pooling: Pooling::Mean, normalize: Normalize::L2, dim: 1, skip: 0 };

    fn entry(value: f32) -> Entry {
        Entry { vector: [value].into(), tokens: 3, full_length: 5 }
    }

    fn value(cache: &Cache, variant: Variant, prompt: &str, text: &str) -> Option<f32> {
        cache.lock().unwrap().get(variant, prompt, text, 1).map(|entry| entry.vector[0])
    }

    fn insert(cache: &Cache, variant: Variant, text: &str, vector: f32) {
        cache.lock().unwrap().insert(variant, "", text, entry(vector));
    }

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let cache = Cache::new(CacheLimits { entries: Some(2), bytes: None });
        insert(&cache, PLAIN, "a", 1.0);
        insert(&cache, PLAIN, "b", 2.0);
        assert_eq!(value(&cache, PLAIN, "", "a"), Some(1.0));
        insert(&cache, PLAIN, "c", 3.0);
        assert_eq!(value(&cache, PLAIN, "", "b"), None);
        assert_eq!(value(&cache, PLAIN, "", "a"), Some(1.0));
        assert_eq!(value(&cache, PLAIN, "", "c"), Some(3.0));
        let info = cache.info();
        assert_eq!((info.entries, info.hits, info.misses), (2, 3, 1));
    }

    #[test]
    fn whatever_changes_the_vector_is_in_the_key() {
        let cache = Cache::new(CacheLimits::default());
        let variants = [
            PLAIN,
            Variant { pooling: Pooling::Cls, ..PLAIN },
            Variant { normalize: Normalize::None, ..PLAIN },
            Variant { normalize: Normalize::P(1.0), ..PLAIN },
            Variant { normalize: Normalize::P(3.0), ..PLAIN },
            Variant { dim: 2, ..PLAIN },
            Variant { skip: 1, ..PLAIN },
        ];
        for (i, variant) in variants.into_iter().enumerate() {
            insert(&cache, variant, "text", i as f32);
        }
        for (i, variant) in variants.into_iter().enumerate() {
            assert_eq!(value(&cache, variant, "", "text"), Some(i as f32), "{variant:?}");
            assert_eq!(value(&cache, variant, "te", "xt"), Some(i as f32));
            assert_eq!(value(&cache, variant, "prompt", "text"), None);
        }
    }

    #[test]
    fn bytes_are_counted_and_limited() {
        let cache = Cache::new(CacheLimits { entries: None, bytes: Some(1000) });
        for i in 0..100 {
            insert(&cache, PLAIN, &format!("text {i}"), i as f32);
            insert(&cache, PLAIN, &format!("text {i}"), i as f32);
            let info = cache.info();
            assert!(info.bytes <= 1000 && info.entries > 0, "{info:?}");
        }
        assert_eq!(value(&cache, PLAIN, "", "text 99"), Some(99.0));
        cache.lock().unwrap().insert(
            PLAIN,
            "",
            "large",
            Entry { vector: vec![0.0; 1000].into(), tokens: 1, full_length: 1 },
        );
        assert_eq!(value(&cache, PLAIN, "", "large"), None);
        assert_eq!(cache.info().bytes, 0);
    }

    #[test]
    fn a_limit_of_nothing_switches_it_off() {
        for limits in [CacheLimits::OFF, CacheLimits { entries: None, bytes: Some(0) }] {
            let cache = Cache::new(limits);
            assert!(cache.lock().is_none());
            cache.clear();
            assert_eq!(cache.info().entries, 0);
        }
    }

    #[test]
    fn clearing_forgets_the_entries_and_keeps_the_counts() {
        let cache = Cache::new(CacheLimits { entries: Some(usize::MAX), bytes: None });
        insert(&cache, PLAIN, "a", 1.0);
        assert_eq!(value(&cache, PLAIN, "", "a"), Some(1.0));
        cache.clear();
        assert_eq!(value(&cache, PLAIN, "", "a"), None);
        let info = cache.info();
        assert_eq!((info.entries, info.bytes, info.hits, info.misses), (0, 0, 1, 1));
    }
}
