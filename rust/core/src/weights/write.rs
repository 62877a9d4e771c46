//! Writing weights files, tensor by tensor.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{CompressionType, MetadataVersion};
use arrow_schema::{ArrowError, Schema};

use super::Tensor;
use super::embedded::{CHECKSUMS_KEY, METADATA_KEY, VERSION_KEY, sha256_hex};
use super::table::{schema, to_batch};
use crate::convert::{Compression, Format};
use crate::error::{Error, Result};
use crate::metadata::{FORMAT_VERSION, Metadata};

/// Alignment of every payload: a cache line, and the width of an AVX-512 register.
pub(crate) const ALIGNMENT: usize = 64;

/// An empty file, and what is to be written into it.
pub(crate) struct WeightsFile<'a> {
    pub(crate) file: File,
    /// For messages.
    pub(crate) path: &'a Path,
    pub(crate) format: Format,
    pub(crate) compression: Compression,
}

/// A weights file in the making. It holds one tensor at a time.
pub(crate) struct WeightsWriter {
    path: PathBuf,
    schema: Arc<Schema>,
    checksums: BTreeMap<String, String>,
    sink: Sink,
}

enum Sink {
    Arrow(Box<FileWriter<BufWriter<File>>>),
    Parquet(Box<ArrowWriter<File>>),
}

impl WeightsWriter {
    /// Starts a file.
    pub(crate) fn new(target: WeightsFile<'_>, metadata: &Metadata) -> Result<Self> {
        let WeightsFile { file, path, format, compression } = target;
        let metadata = metadata.to_json()?;
        let pairs = [
            (VERSION_KEY.to_owned(), FORMAT_VERSION.to_string()),
            (METADATA_KEY.to_owned(), metadata),
        ];
        let (sink, schema) = match format {
            Format::Arrow => {
                let schema = Arc::new(schema().with_metadata(HashMap::from(pairs)));
                let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)
                    .and_then(|options| options.try_with_compression(ipc_compression(compression)))
                    .map_err(arrow_error(path))?;
                let writer =
                    FileWriter::try_new_with_options(BufWriter::new(file), &schema, options)
                        .map_err(arrow_error(path))?;
                (Sink::Arrow(Box::new(writer)), schema)
            }
            Format::Parquet => {
                let schema = Arc::new(schema());
                let pairs = pairs.into_iter().map(|(key, value)| KeyValue::new(key, value));
                let properties = WriterProperties::builder()
                    .set_compression(parquet_compression(compression))
                    // Weights have neither repetitions nor an order worth knowing.
                    .set_dictionary_enabled(false)
                    .set_statistics_enabled(EnabledStatistics::None)
                    .set_key_value_metadata(Some(pairs.collect()))
                    .build();
                let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
                    .map_err(parquet_error(path))?;
                (Sink::Parquet(Box::new(writer)), schema)
            }
        };
        Ok(Self { path: path.to_owned(), schema, checksums: BTreeMap::new(), sink })
    }

    /// Writes one tensor, as a record batch or row group of its own.
    pub(crate) fn write(&mut self, tensor: &Tensor) -> Result<()> {
        self.checksums.insert(tensor.name.clone(), sha256_hex(&tensor.data));
        let batch = to_batch(tensor, Arc::clone(&self.schema)).map_err(arrow_error(&self.path))?;
        match &mut self.sink {
            Sink::Arrow(writer) => writer.write(&batch).map_err(arrow_error(&self.path)),
            Sink::Parquet(writer) => {
                // Sizes of Parquet pages are int32.
                if i32::try_from(tensor.data.len()).is_err() {
                    return Err(Error::argument(
                        "format",
                        format!(
                            "tensor {:?} is larger than the 2 GiB that Parquet allows; use arrow",
                            tensor.name
                        ),
                    ));
                }
                writer
                    .write(&batch)
                    .and_then(|()| writer.flush())
                    .map_err(parquet_error(&self.path))
            }
        }
    }

    /// Writes the checksums and the footer, and brings everything to the disk.
    pub(crate) fn finish(self) -> Result<File> {
        let Self { path, checksums, sink, .. } = self;
        let checksums = serde_json::to_string(&checksums)
            .map_err(|e| Error::invalid_file(&path, e.to_string()))?;
        let file = match sink {
            Sink::Arrow(mut writer) => {
                writer.write_metadata(CHECKSUMS_KEY, checksums);
                let buffered = writer.into_inner().map_err(arrow_error(&path))?;
                buffered.into_inner().map_err(|e| Error::io(&path)(e.into_error()))?
            }
            Sink::Parquet(mut writer) => {
                writer
                    .append_key_value_metadata(KeyValue::new(CHECKSUMS_KEY.to_owned(), checksums));
                writer.into_inner().map_err(parquet_error(&path))?
            }
        };
        file.sync_all().map_err(Error::io(&path))?;
        Ok(file)
    }
}

fn ipc_compression(compression: Compression) -> Option<CompressionType> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        Compression::Zstd => Some(CompressionType::ZSTD),
    }
}

fn parquet_compression(compression: Compression) -> ParquetCompression {
    match compression {
        Compression::None => ParquetCompression::UNCOMPRESSED,
        Compression::Lz4 => ParquetCompression::LZ4_RAW,
        Compression::Zstd => ParquetCompression::ZSTD(ZstdLevel::default()),
    }
}

pub(crate) fn arrow_error(path: &Path) -> impl FnOnce(ArrowError) -> Error {
    move |error| match error {
        ArrowError::IoError(_, source) => Error::io(path)(source),
        other => Error::io(path)(std::io::Error::other(other)),
    }
}

fn parquet_error(path: &Path) -> impl FnOnce(ParquetError) -> Error {
    move |error| match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => Error::io(path)(*source),
            Err(other) => Error::io(path)(std::io::Error::other(other)),
        },
        other => Error::io(path)(std::io::Error::other(other)),
    }
}
