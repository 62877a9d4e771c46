//! Many texts, with progress: `cargo run --release --example batch -- MODEL FILE` embeds a file's lines
//! and says how long it took.

use std::ops::ControlFlow;
use std::time::Instant;

use arrowembed::{EncodeOptions, Engine};

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, file] = arguments.as_slice() else {
        return Err("usage: batch MODEL FILE".into());
    };
    let lines = std::fs::read_to_string(file)?;
    let texts: Vec<&str> = lines.lines().collect();
    let engine = Engine::open(model)?;

    let start = Instant::now();
    let mut show = |finished: usize| {
        eprint!("\r{finished} of {} texts", texts.len());
        ControlFlow::Continue(())
    };
    let embeddings = engine.encode_with(&texts, &EncodeOptions::new(), Some(&mut show))?;
    let (seconds, stats) = (start.elapsed().as_secs_f64(), embeddings.stats());
    eprintln!();
    println!(
        "{} vectors of {} numbers in {seconds:.2} s: {:.0} texts/s, {:.0} tokens/s; {} were cut",
        embeddings.len(),
        embeddings.dim(),
        stats.texts as f64 / seconds,
        stats.tokens as f64 / seconds,
        stats.truncated,
    );
    Ok(())
}
