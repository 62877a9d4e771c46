//! Dividing a search among threads, and what each does.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use half::f16;

use super::bound::{Bounds, threshold};
use super::keep::Keep;
use super::top::{Hit, Top};
use super::write::all_finite;
use super::{Metric, SearchOptions, VectorFile, exact};
use crate::error::{Error, Result};
use crate::ops::cpu::Isa;
use crate::ops::cpu::scan::{Job, Scanner, Terms, Vectors};
use crate::pipeline::monitor_of;
use crate::threads::{self, Monitor};

/// Queries for which a block of vectors is read once.
const QUERIES: usize = 128;

/// Bytes of a block of vectors, which stays in the second-level cache while the queries pass by.
const BLOCK: usize = 1 << 18;

/// Most vectors of a block, so that what is computed of each stays in the first-level cache.
const MOST_ROWS: usize = 1024;

/// Bytes of vectors that a thread takes at a time: some blocks, and some hundred microseconds.
const PART: usize = 1 << 21;

/// Multiply-adds of a search that is over before another thread is awake.
const BRIEF: usize = 1 << 20;

/// A block is scanned whole if at least one of so many of its vectors is kept; else those are copied together.
const SPARSE: usize = 2;

/// The most similar vectors of each query.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    per_query: usize,
    rows: Vec<u64>,
    similarities: Vec<f32>,
}

impl Neighbours {
    /// How many there are of each query: k, or as many as are searched.
    pub fn per_query(&self) -> usize {
        self.per_query
    }

    /// Their rows, `[queries, per_query]`, the most similar first. The files' rows are counted one file after
    /// the other.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// How similar they are, in the same order.
    pub fn similarities(&self) -> &[f32] {
        &self.similarities
    }

    /// Both, without a copy.
    pub fn into_parts(self) -> (Vec<u64>, Vec<f32>) {
        (self.rows, self.similarities)
    }
}

/// The `k` vectors of some files that are most similar to each of the queries, `[n, dim]`.
///
/// They and their order are those of similarities in double precision of the vectors as they are stored. Of
/// equally similar ones the lower row comes first.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("vectors.arrow");
/// use arrowembed::{DType, SearchOptions, VectorFile, search_vectors};
///
/// VectorFile::write(&path, &[1.0, 0.0, 0.6, 0.8, 0.0, 1.0], 2, DType::Float32)?;
/// let file = VectorFile::open(&path)?;
/// let found = search_vectors(&[&file], &[0.0, 2.0], 2, &SearchOptions::new(2), None)?;
/// assert_eq!(found.rows(), [2, 1]);
/// assert_eq!(found.similarities(), [1.0, 0.8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] if the arguments do not fit each other or the files, or queries are not finite;
/// [`Error::InvalidVectors`] if a file was damaged meanwhile; [`Error::Interrupted`] if the monitor says so.
pub fn search_vectors(
    files: &[&VectorFile],
    queries: &[f32],
    dim: usize,
    options: &SearchOptions<'_>,
    monitor: Option<Monitor<'_>>,
) -> Result<Neighbours> {
    let keep = check(files, queries, dim, options)?;
    let kept = files.iter().zip(&keep).map(|(file, keep)| keep.count(0..file.len())).sum();
    let per_query = options.k.min(kept);
    let count = queries.len() / dim;
    let mut found = Neighbours { per_query, rows: Vec::new(), similarities: Vec::new() };
    if per_query == 0 {
        return Ok(found);
    }
    let too_many = || Error::OutOfMemory { reason: format!("{per_query} hits of {count} queries") };
    let total = count.checked_mul(per_query).ok_or_else(too_many)?;
    found.rows.try_reserve_exact(total).map_err(|_| too_many())?;
    found.similarities.try_reserve_exact(total).map_err(|_| too_many())?;
    let mut ask = monitor.map(|monitor| move |done| monitor(done));
    for (i, queries) in queries.chunks(QUERIES * dim).enumerate() {
        if i > 0 {
            threads::ask(monitor_of(&mut ask), 0)?;
        }
        let search = Search::new(files, &keep, queries, dim, options.metric, per_query);
        for top in search.run(monitor_of(&mut ask))? {
            for Hit { similarity, row } in top.into_sorted() {
                found.rows.push(row);
                found.similarities.push(similarity as f32);
            }
        }
    }
    Ok(found)
}

/// Which rows of each file are searched, if the arguments are what they should be.
fn check<'a>(
    files: &[&VectorFile],
    queries: &[f32],
    dim: usize,
    options: &SearchOptions<'a>,
) -> Result<Vec<Keep<'a>>> {
    if options.k == 0 {
        return Err(Error::argument("k", "is 0, the least is 1"));
    }
    if dim == 0 || !queries.len().is_multiple_of(dim) {
        let reason = format!("have {} elements, not whole vectors of {dim}", queries.len());
        return Err(Error::argument("queries", reason));
    }
    all_finite("queries", queries, dim)?;
    if let Some(file) = files.iter().find(|file| file.dimension() != dim) {
        let (path, found) = (file.path().display(), file.dimension());
        let reason = format!("have {dim} dimensions, the vectors in {path} have {found}");
        return Err(Error::argument("queries", reason));
    }
    let Some(keep) = &options.keep else { return Ok(vec![Keep::new(None); files.len()]) };
    if keep.len() != files.len() {
        let reason = format!("has {} bitmaps, there are {} files", keep.len(), files.len());
        return Err(Error::argument("keep", reason));
    }
    for (file, bits) in files.iter().zip(keep) {
        let expected = file.len().div_ceil(8);
        if let Some(bits) = bits.filter(|bits| bits.len() != expected) {
            let path = file.path().display();
            let reason = format!("has {} bytes for {path}, expected are {expected}", bits.len());
            return Err(Error::argument("keep", reason));
        }
    }
    Ok(keep.iter().map(|bits| Keep::new(*bits)).collect())
}

/// A search of queries that are scanned together.
struct Search<'a> {
    files: Vec<Source<'a>>,
    queries: &'a [f32],
    /// Their norms.
    norms: Vec<f64>,
    dim: usize,
    metric: Metric,
    k: usize,
    isa: Isa,
    /// Of each query, what is known of all parts that are done.
    tops: Vec<Mutex<Top>>,
    /// Memory that no thread uses at the moment.
    idle: Mutex<Vec<Scratch>>,
}

/// A file, which of its rows are searched, and the number of its first row.
struct Source<'a> {
    file: &'a VectorFile,
    keep: Keep<'a>,
    start: u64,
}

/// What a thread takes at a time.
struct Part<'a> {
    source: &'a Source<'a>,
    rows: Range<usize>,
}

/// A thread's memory.
struct Scratch {
    scanner: Scanner,
    bounds: Bounds,
    dots: Vec<f32>,
    found: Vec<u32>,
    converted: Vec<f32>,
    rows: Vec<usize>,
    copies: Copies,
}

/// Copies of vectors that do not lie together.
#[derive(Default)]
struct Copies {
    float32: Vec<f32>,
    float16: Vec<f16>,
    int8: Vec<i8>,
}

impl<'a> Search<'a> {
    fn new(
        files: &[&'a VectorFile],
        keep: &[Keep<'a>],
        queries: &'a [f32],
        dim: usize,
        metric: Metric,
        k: usize,
    ) -> Self {
        let mut start = 0;
        let sources = files.iter().zip(keep).map(|(&file, &keep)| {
            let source = Source { file, keep, start };
            start += file.len() as u64;
            source
        });
        let norms: Vec<f64> = queries.chunks_exact(dim).map(exact::norm).collect();
        Self {
            files: sources.collect(),
            queries,
            dim,
            metric,
            k,
            isa: Isa::chosen(),
            tops: norms.iter().map(|_| Mutex::new(Top::new(k, f64::NEG_INFINITY))).collect(),
            norms,
            idle: Mutex::default(),
        }
    }

    fn run(self, monitor: Option<Monitor<'_>>) -> Result<Vec<Top>> {
        let rows: usize = self.files.iter().map(|source| source.file.len()).sum();
        let work = rows.saturating_mul(self.queries.len());
        let brief = work <= BRIEF;
        let result = threads::for_each(self.parts(brief), monitor, brief, |part| {
            let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let scratch = idle().pop();
            let mut scratch = scratch.unwrap_or_else(|| Scratch::new(self.isa));
            self.search(&part, &mut scratch);
            idle().push(scratch);
            Ok(0)
        });
        // What else went wrong may be because of that.
        for source in &self.files {
            source.file.check_map()?;
        }
        result?;
        let tops = self.tops.into_iter();
        Ok(tops.map(|top| top.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }

    /// All rows, in parts.
    fn parts(&self, brief: bool) -> impl Iterator<Item = Part<'_>> {
        self.files.iter().flat_map(move |source| {
            let all = source.file.len();
            let row = self.dim * source.file.dtype().size();
            let step = if brief { all } else { (PART / row).next_multiple_of(64).max(64) };
            (0..all)
                .step_by(step)
                .map(move |first| Part { source, rows: first..all.min(first + step) })
        })
    }

    /// Offers the best of a part.
    fn search(&self, part: &Part<'_>, scratch: &mut Scratch) {
        let shared = |q: usize| self.tops[q].lock().unwrap_or_else(PoisonError::into_inner);
        let mut tops: Vec<Top> =
            (0..self.norms.len()).map(|q| Top::new(self.k, shared(q).least())).collect();
        let file = part.source.file;
        let size = self.dim * file.dtype().size();
        let step = (BLOCK / size).min(MOST_ROWS).next_multiple_of(64).max(64);
        for first in part.rows.clone().step_by(step) {
            let rows = first..part.rows.end.min(first + step);
            self.search_block(part.source, rows, scratch, &mut tops);
        }
        for (q, top) in tops.into_iter().enumerate() {
            shared(q).merge(top);
        }
    }

    fn search_block(
        &self,
        source: &Source<'_>,
        range: Range<usize>,
        scratch: &mut Scratch,
        tops: &mut [Top],
    ) {
        let Scratch { scanner, bounds, dots, found, converted, rows, copies } = scratch;
        let Source { file, keep, start } = *source;
        let vectors = choose(file.scanned(), self.dim, range, keep, rows, copies);
        let count = rows.len();
        if count == 0 {
            return;
        }
        let error = scanner.error(self.dim);
        bounds.fill(self.metric, error, rows.iter().map(|&row| file.known(row)));
        dots.resize(self.norms.len() * count, 0.0);
        scanner.dots(&Job { vectors, queries: self.queries, dim: self.dim }, dots);
        let queries = self.queries.chunks_exact(self.dim).zip(&self.norms);
        for ((query, &norm), (top, dots)) in queries.zip(tops.iter_mut().zip(dots.chunks(count))) {
            let Bounds { scale, gain, loss } = bounds;
            let terms = Terms { dots, scale, gain, loss, norm: norm as f32 };
            found.clear();
            let least = threshold(self.metric, self.dim, norm, top.least());
            scanner.select(&terms, least, found);
            for &i in &*found {
                let row = rows[i as usize];
                // Those before it may have raised what must be reached.
                let least = threshold(self.metric, self.dim, norm, top.least());
                if !keep.contains(row) || terms.bound(i as usize) < least {
                    continue;
                }
                let vector = file.vector(row, converted);
                let similarity =
                    exact::similarity(self.metric, query, norm, vector, file.norm(row));
                top.offer(Hit { similarity, row: start + row as u64 });
            }
        }
    }
}

impl Scratch {
    fn new(isa: Isa) -> Self {
        Self {
            scanner: Scanner::new(isa),
            bounds: Bounds::default(),
            dots: Vec::new(),
            found: Vec::new(),
            converted: Vec::new(),
            rows: Vec::new(),
            copies: Copies::default(),
        }
    }
}

/// The vectors of some rows that are to be scanned, and which rows they are: all of them where they lie, if enough
/// are searched, else copies of these.
fn choose<'a>(
    vectors: Vectors<'a>,
    dim: usize,
    range: Range<usize>,
    keep: Keep<'_>,
    rows: &mut Vec<usize>,
    copies: &'a mut Copies,
) -> Vectors<'a> {
    rows.clear();
    if keep.count(range.clone()) * SPARSE >= range.len() {
        let elements = range.start * dim..range.end * dim;
        rows.extend(range);
        return match vectors {
            Vectors::Float32(numbers) => Vectors::Float32(&numbers[elements]),
            Vectors::Float16(numbers) => Vectors::Float16(&numbers[elements]),
            Vectors::Int8(codes) => Vectors::Int8(&codes[elements]),
        };
    }
    keep.rows(range, rows);
    match vectors {
        Vectors::Float32(numbers) => {
            Vectors::Float32(gather(numbers, dim, rows, &mut copies.float32))
        }
        Vectors::Float16(numbers) => {
            Vectors::Float16(gather(numbers, dim, rows, &mut copies.float16))
        }
        Vectors::Int8(codes) => Vectors::Int8(gather(codes, dim, rows, &mut copies.int8)),
    }
}

/// Copies of some vectors.
fn gather<'a, T: Copy>(
    vectors: &[T],
    dim: usize,
    rows: &[usize],
    copies: &'a mut Vec<T>,
) -> &'a [T] {
    copies.clear();
    for &row in rows {
        copies.extend_from_slice(&vectors[row * dim..(row + 1) * dim]);
    }
    copies
}
