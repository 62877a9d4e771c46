use std::collections::HashMap;
use std::fs::File;
use std::io::Cursor;

use arrow_array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};

use super::super::embedded::VERSION_KEY;
use super::*;
use crate::fixtures::{all_values, assert_invariant, go_on};
use crate::metadata::FORMAT_VERSION;
use crate::weights::DType;
use crate::weights::memory::InMemory;
use crate::weights::table::to_batch;
use crate::weights::values::encode;

/// A small packed model: a matrix in each dtype, a table, a vector.
fn tensors() -> Vec<Tensor> {
    let numbers = |n: usize| (0..n).map(|i| (i * 31 % 17) as f32 / 16.0 - 0.5).collect::<Vec<_>>();
    let mut tensors = Vec::new();
    for (name, dtype, packed) in [
        ("single.weight", DType::Float32, true),
        ("half.weight", DType::Float16, true),
        ("brain.weight", DType::BFloat16, true),
        ("word.weight", DType::Int16, true),
        ("byte.weight", DType::Int8, true),
        ("table.weight", DType::Float16, false),
    ] {
        let encoded = encode(numbers(18 * 5), 5, dtype, packed);
        assert_eq!(encoded.dtype, dtype);
        let (shape, layout, data) = (vec![18, 5], encoded.layout, encoded.data);
        tensors.push(Tensor { name: name.to_owned(), shape, dtype, layout, data });
        for companion in encoded.companions {
            let mut tensor = vector(&(companion.name)(name), companion.values);
            tensor.shape = companion.shape;
            tensors.push(tensor);
        }
    }
    tensors.push(vector("single.bias", numbers(18)));
    tensors
}

fn vector(name: &str, values: Vec<f32>) -> Tensor {
    InMemory::default().with(name, &[values.len()], values).0.remove(name).unwrap()
}

/// An Arrow file of these batches; alignment and compression as given.
fn file(
    batches: &[RecordBatch],
    alignment: usize,
    compression: Option<CompressionType>,
) -> Vec<u8> {
    let options = IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5)
        .and_then(|options| options.try_with_compression(compression))
        .unwrap();
    let version = (VERSION_KEY.to_owned(), FORMAT_VERSION.to_string());
    let schema = schema().with_metadata(HashMap::from([version]));
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

fn batches(tensors: &[Tensor]) -> Vec<RecordBatch> {
    let schema = Arc::new(schema());
    tensors.iter().map(|tensor| to_batch(tensor, Arc::clone(&schema)).unwrap()).collect()
}

fn whole() -> Vec<u8> {
    file(&batches(&tensors()), 64, None)
}

fn expected() -> InMemory {
    InMemory(tensors().into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect())
}

/// Whatever is wrong with a file, it is refused or its tensors are what a source promises.
fn opens_safely(bytes: &[u8]) -> bool {
    let Ok(file) = ArrowFile::from_bytes(bytes) else { return false };
    for name in file.names() {
        if let Ok(tensor) = file.require(name) {
            let length = Tensor::byte_len(&tensor.shape, tensor.dtype, tensor.layout);
            assert_eq!(length, Some(tensor.data.len()));
            assert!((tensor.data.as_ptr() as usize).is_multiple_of(tensor.dtype.size()));
        }
    }
    true
}

fn reason(bytes: &[u8]) -> String {
    let error = ArrowFile::from_bytes(bytes).unwrap_err();
    assert_eq!(error.code(), "invalid_file", "{error}");
    error.to_string()
}

#[test]
fn what_was_written_is_read() {
    let file = ArrowFile::from_bytes(&whole()).unwrap();
    assert!(file.is_packed());
    assert_eq!(file.names(), tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>());
    assert_eq!(all_values(&file), all_values(&expected()));
    assert_invariant(&file);
    assert!(file.get("no such tensor").unwrap().is_none());
    assert_eq!(file.require("no such tensor").unwrap_err().code(), "missing_tensor");
}

#[test]
fn payloads_are_slices_of_the_file_and_stand_on_64_bytes() {
    let bytes = Buffer::from(whole());
    let range = bytes.as_slice().as_ptr_range();
    let file = ArrowFile::from_buffer(bytes.clone(), Path::new("")).unwrap();
    for name in file.names() {
        let data = file.require(name).unwrap().data;
        assert!(range.contains(&data.as_ptr()));
        assert_eq!((data.as_ptr() as usize - range.start as usize) % 64, 0);
    }
}

#[test]
fn integers_of_earlier_formats_are_not_computed_with_as_they_are() {
    let floats = || tensors().into_iter().filter(|t| t.dtype != DType::Int16);
    let packed = |version: Option<&str>, tensors: Vec<Tensor>| {
        let version = version.map(|version| (VERSION_KEY.to_owned(), version.to_owned()));
        let schema = schema().with_metadata(version.into_iter().collect::<HashMap<_, _>>());
        let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5).unwrap();
        let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
        for batch in batches(&tensors) {
            writer.write(&batch).unwrap();
        }
        ArrowFile::from_bytes(&writer.into_inner().unwrap()).unwrap().is_packed()
    };
    assert!(packed(Some("3"), tensors()));
    assert!(!packed(Some("2"), tensors()));
    assert!(!packed(Some("1"), tensors()));
    // Whoever does not say so may follow either rule.
    assert!(!packed(None, tensors()));
    for version in [Some("3"), Some("2"), Some("1"), None] {
        assert!(packed(version, floats().collect()));
    }
}

#[test]
fn compressed_files_are_read_but_are_not_packed() {
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let file = ArrowFile::from_bytes(&file(&batches(&tensors()), 64, Some(codec))).unwrap();
        assert!(!file.is_packed());
        assert_eq!(all_values(&file), all_values(&expected()));
        assert_invariant(&file);
    }
}

#[test]
fn other_writers_put_all_tensors_into_one_batch_without_our_alignment() {
    let all = arrow_select_concat(&batches(&tensors()));
    for codec in [None, Some(CompressionType::ZSTD)] {
        let file = ArrowFile::from_bytes(&file(std::slice::from_ref(&all), 8, codec)).unwrap();
        assert!(!file.is_packed());
        assert_eq!(all_values(&file), all_values(&expected()));
        assert_invariant(&file);
    }
}

/// One batch of several, through a writer and a reader of arrays.
fn arrow_select_concat(batches: &[RecordBatch]) -> RecordBatch {
    let columns = (0..6)
        .map(|column| {
            let data: Vec<_> = batches.iter().map(|b| b.column(column).to_data()).collect();
            let mut all = arrow_data::transform::MutableArrayData::new(
                data.iter().collect(),
                false,
                data.len(),
            );
            for i in 0..data.len() {
                all.try_extend(i, 0, 1).unwrap();
            }
            arrow_array::make_array(all.freeze())
        })
        .collect();
    RecordBatch::try_new(Arc::new(schema()), columns).unwrap()
}

#[test]
fn every_byte_outside_the_payloads_may_be_anything() {
    let bytes = whole();
    let payloads: Vec<_> = {
        let buffer = Buffer::from(&bytes[..]);
        let start = buffer.as_ptr() as usize;
        let file = ArrowFile::from_buffer(buffer, Path::new("")).unwrap();
        let range = |name| {
            let data = file.require(name).unwrap().data;
            let at = data.as_ptr() as usize - start;
            at..at + data.len()
        };
        file.names().into_iter().map(range).collect()
    };
    let (mut opened, mut refused) = (0, 0);
    let mut damaged = bytes.clone();
    for i in (0..bytes.len()).filter(|i| !payloads.iter().any(|payload| payload.contains(i))) {
        for pattern in [0x01, 0x80, 0x40, 0x08, 0xff] {
            damaged[i] = bytes[i] ^ pattern;
            if opens_safely(&damaged) { opened += 1 } else { refused += 1 }
        }
        for value in [0x00, 0x7f] {
            damaged[i] = value;
            opens_safely(&damaged);
        }
        damaged[i] = bytes[i];
    }
    // Padding and unused metadata may change without harm; much else must not.
    assert!(refused > 3000 && opened > 1000, "{refused} refused, {opened} opened");
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    for bytes in [whole(), file(&batches(&tensors()), 64, Some(CompressionType::ZSTD))] {
        for length in 0..bytes.len() {
            assert!(!opens_safely(&bytes[..length]), "{length} bytes of {}", bytes.len());
        }
    }
}

#[test]
fn damaged_compressed_bytes_never_do_harm() {
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let bytes = file(&batches(&tensors()), 64, Some(codec));
        let mut damaged = bytes.clone();
        for i in 0..bytes.len() {
            for pattern in [0x01, 0x80, 0xff] {
                damaged[i] = bytes[i] ^ pattern;
                opens_safely(&damaged);
            }
            damaged[i] = bytes[i];
        }
    }
}

/// The file with the 8 bytes of its first `needle` replaced.
fn patched(mut bytes: Vec<u8>, needle: i64, value: i64) -> Vec<u8> {
    let needle = needle.to_le_bytes();
    let at = bytes.windows(8).rposition(|window| window == needle).unwrap();
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn blocks_and_lengths_of_any_size_are_refused() {
    let bytes = whole();
    let (footer, _) = ipc::footer(&Buffer::from(&bytes[..])).unwrap();
    let blocks = root_as_footer(&footer).unwrap().recordBatches().unwrap();
    let last = blocks.get(blocks.len() - 1);
    for value in [-1, i64::MIN, i64::MAX, i64::MAX - 64, bytes.len() as i64, 1 << 40, 1 << 62] {
        for field in [last.offset(), last.bodyLength()] {
            assert!(!opens_safely(&patched(bytes.clone(), field, value)), "{field} as {value}");
        }
    }
    for length in [-1, 0, i32::MAX, i32::MIN, bytes.len() as i32] {
        let mut bytes = bytes.clone();
        let at = bytes.len() - ipc::TRAILER;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        assert!(!opens_safely(&bytes), "footer of {length} bytes");
    }
}

#[test]
fn a_compressed_buffer_that_claims_too_much_is_refused() {
    let weights = vector("w", (0..4096).map(|i| i as f32).collect());
    let bytes = file(&batches(&[weights]), 64, Some(CompressionType::ZSTD));
    for claim in [-2, 1 << 34, 1 << 60, i64::MAX] {
        let mut bytes = bytes.clone();
        let length = 4096_i64 * 4;
        let at = bytes.windows(8).position(|window| window == length.to_le_bytes()).unwrap();
        bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
        assert!(ArrowFile::from_bytes(&bytes).is_err(), "{claim}");
    }
}

/// The tensors with the first one changed, as a file.
fn with_first(change: impl FnOnce(&mut Tensor)) -> Vec<u8> {
    let mut tensors = tensors();
    change(&mut tensors[0]);
    file(&batches(&tensors), 64, None)
}

#[test]
fn shapes_that_do_not_fit_the_data_are_refused() {
    for shape in [vec![18, 6], vec![17, 4], vec![90], vec![], vec![5, 18, 1], vec![0, 5]] {
        let reason = reason(&with_first(|tensor| tensor.shape.clone_from(&shape)));
        assert!(reason.contains("single.weight"), "{shape:?}: {reason}");
        assert!(reason.contains("bytes of data"), "{shape:?}: {reason}");
    }
}

#[test]
fn shapes_whose_product_overflows_are_refused() {
    let largest = i32::MAX as usize;
    let mut tensor = vector("w", Vec::new());
    tensor.layout = Layout::RowMajor;
    for shape in [[largest, largest, 0], [largest, 4, 0]] {
        tensor.shape = shape.to_vec();
        assert!(ArrowFile::from_bytes(&file(&batches(&[tensor.clone()]), 64, None)).is_ok());
    }
    // The writer refuses what overflows an int64, so the columns are made by hand.
    tensor.shape = vec![0, 1, 1, 1];
    let batch = batches(&[tensor]).remove(0);
    let huge = [largest as i32; 4];
    let shapes = arrow_array::ListArray::try_new(
        Arc::new(arrow_schema::Field::new("item", arrow_schema::DataType::Int32, false)),
        arrow_buffer::OffsetBuffer::from_lengths([4]),
        Arc::new(arrow_array::Int32Array::from(huge.to_vec())),
        None,
    );
    let mut columns = batch.columns().to_vec();
    columns[1] = Arc::new(shapes.unwrap());
    let batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    assert!(reason(&file(&[batch], 64, None)).contains("parameters"));
}

#[test]
fn dtypes_that_do_not_fit_are_refused() {
    assert!(reason(&with_first(|t| t.dtype = DType::Float16)).contains("bytes of data"));
    for layout in [Layout::Panel16, Layout::Panel16x4, Layout::RowMajor] {
        let bfloat16 = with_first(|t| (t.dtype, t.layout) = (DType::BFloat16, layout));
        assert!(reason(&bfloat16).contains("is bfloat16 in layout"));
    }
    assert!(reason(&with_first(|t| t.layout = Layout::RowMajor)).contains("bytes of data"));
}

#[test]
fn names_must_be_unique_and_scales_present() {
    let twice = with_first(|tensor| tensor.name = "half.weight".to_owned());
    assert!(reason(&twice).contains("there twice"));
    for missing in ["byte.weight.scale", "word.weight.scale", "word.weight.sum"] {
        let rest: Vec<_> = tensors().into_iter().filter(|t| t.name != missing).collect();
        let reason = reason(&file(&batches(&rest), 64, None));
        assert!(reason.contains("has no float32") && reason.contains(missing), "{reason}");
    }
}

#[test]
fn other_columns_are_refused_with_their_names() {
    let batch = batches(&tensors()).remove(0);
    let projected = batch.project(&[0, 1, 2, 3, 4]).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &projected.schema()).unwrap();
    writer.write(&projected).unwrap();
    assert!(reason(&writer.into_inner().unwrap()).contains("layer_name: Utf8"));
}

#[test]
fn what_is_no_arrow_file_is_refused() {
    assert!(reason(b"").contains("does not begin"));
    assert!(reason(b"ARROW1").contains("too short"));
    assert!(reason(&[0; 4096]).contains("does not begin"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ArrowFile::open(folder.path()).unwrap_err().code(), "invalid_file");
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap();
    assert!(ArrowFile::open(&empty).unwrap_err().to_string().contains("empty"));
    assert_eq!(ArrowFile::open(&folder.path().join("none")).unwrap_err().code(), "io");
}

#[test]
fn a_newer_format_and_malformed_checksums_are_refused() {
    let with = |key: &str, value: &str| {
        let schema = schema().with_metadata(HashMap::from([(key.to_owned(), value.to_owned())]));
        let writer = FileWriter::try_new(Cursor::new(Vec::new()), &schema).unwrap();
        reason(&writer.into_inner().unwrap().into_inner())
    };
    assert!(with("arrowembed.format_version", "4").contains("upgrade"));
    assert!(with("arrowembed.format_version", "one").contains("not a number"));
    assert!(with("arrowembed.checksums", "[]").contains("checksums"));
}

#[test]
fn a_file_without_checksums_cannot_be_verified() {
    let file = ArrowFile::from_bytes(&whole()).unwrap();
    assert!(file.verify(&mut go_on).unwrap_err().to_string().contains("no checksums"));
}
