//! The matrix kernels as a share of what this machine's multiply-adds in single precision can reach:
//! `cargo bench -p arrowembed --features measure --bench kernels`.
//!
//! The share says the same on any machine, so that a kernel which has become slower shows anywhere.
//! Integers, half precision (float16 on avx512fp16) and AMX tiles have higher peaks of their own and may come to more
//! than 100 %.

#![allow(clippy::expect_used)] // nothing to measure without kernels

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use arrowembed::DType;
use arrowembed::measure::{Product, instruction_sets, peak};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};

/// Matrices of all-MiniLM-L6-v2, `[out_features, in_features]`.
const SHAPES: [[usize; 2]; 4] = [[1152, 384], [384, 384], [1536, 384], [384, 1536]];

/// Wall time, with throughput shown as a share of the peak.
struct ShareOfPeak {
    time: WallTime,
    formatter: Formatter,
}

struct Formatter {
    /// Operations a nanosecond.
    peak: Rc<Cell<f64>>,
}

impl Measurement for ShareOfPeak {
    type Intermediate = <WallTime as Measurement>::Intermediate;
    type Value = Duration;

    fn start(&self) -> Self::Intermediate {
        self.time.start()
    }

    fn end(&self, start: Self::Intermediate) -> Duration {
        self.time.end(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        self.time.add(a, b)
    }

    fn zero(&self) -> Duration {
        self.time.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        self.time.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &self.formatter
    }
}

impl ValueFormatter for Formatter {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        if let Throughput::Elements(operations) = *throughput {
            for nanoseconds in values {
                *nanoseconds = 100.0 * operations as f64 / *nanoseconds / self.peak.get();
            }
        }
        "% of the multiply-add peak"
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}

fn main() {
    let share = Rc::new(Cell::new(1.0));
    let formatter = Formatter { peak: Rc::clone(&share) };
    let mut criterion = Criterion::default()
        .with_measurement(ShareOfPeak { time: WallTime, formatter })
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .configure_from_args();
    for isa in instruction_sets() {
        share.set(peak(isa).expect("an instruction set of this machine") / 1e9);
        for dtype in [DType::Float32, DType::Float16, DType::BFloat16, DType::Int16, DType::Int8] {
            let mut group = criterion.benchmark_group(format!("{isa}/{}", dtype.name()));
            for rows in [12, 128] {
                for shape in SHAPES {
                    let mut product = Product::new(isa, dtype, rows, shape).expect("a product");
                    let [out_features, in_features] = shape;
                    let operations = 2 * rows * out_features * in_features;
                    group.throughput(Throughput::Elements(operations as u64));
                    let name = format!("{rows}x{in_features}x{out_features}");
                    group.bench_function(name, |bencher| bencher.iter(|| product.run()));
                }
            }
            group.finish();
        }
    }
    criterion.final_summary();
}
