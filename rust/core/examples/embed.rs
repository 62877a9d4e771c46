//! How alike are texts?
//!
//! `cargo run --release --example embed -- MODEL TEXT TEXT...` compares its arguments;
//! with a single TEXT that is a file, the file's lines.

use arrowembed::Engine;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: embed MODEL TEXT TEXT... | embed MODEL FILE")?;
    let mut texts: Vec<String> = arguments.collect();
    if let [file] = texts.as_slice() {
        texts = std::fs::read_to_string(file)?.lines().map(str::to_owned).collect();
    }

    let engine = Engine::open(model)?;
    let embeddings = engine.encode(&texts)?;
    for (a, text) in embeddings.rows().zip(&texts) {
        for b in embeddings.rows() {
            let similarity: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            print!("{similarity:6.3} ");
        }
        println!(" {text}");
    }
    Ok(())
}
