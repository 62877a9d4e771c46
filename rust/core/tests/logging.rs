//! What is logged. A process of its own, because whoever hears the log hears all of the process.

#![allow(clippy::unwrap_used)] // a test says what it expects by failing

use std::sync::{Arc, Mutex};

use arrowembed::Engine;

/// Keeps the warnings that are logged, with all their fields.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        assert!(!format!("{span:?}").contains("secret"));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_cut_is_logged_once_and_never_with_the_text() {
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).unwrap();
    let unpacked = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hf/bert");
    let engine = Engine::builder().cache_dir(unpacked.path()).open(model).unwrap();
    let long = "secret ".repeat(100);
    engine.encode(&["secret"]).unwrap();
    assert!(warnings.0.lock().unwrap().is_empty());
    for _ in 0..3 {
        engine.encode(&["secret", &long]).unwrap();
    }
    let warnings = warnings.0.lock().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(!warnings[0].contains("secret"), "{}", warnings[0]);
}
