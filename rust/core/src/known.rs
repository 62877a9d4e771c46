//! Prompts and shorter sizes of known models whose files do not name them.

use std::collections::BTreeMap;

/// How a model's name begins, in lower case, and its prompts; the first line that fits holds.
///
/// From the models' cards. Models whose own files name their prompts are here for the sake of GGUF files, which
/// cannot.
const PROMPTS: &[(&str, &[(&str, &str)])] = &[
    // Its instructions are each caller's own.
    ("multilingual-e5-large-instruct", &[]),
    ("multilingual-e5-", E5),
    ("e5-mistral", &[]),
    ("e5-", E5),
    ("bge-m3", &[]),
    ("bge-small-zh", BGE_CHINESE),
    ("bge-base-zh", BGE_CHINESE),
    ("bge-large-zh", BGE_CHINESE),
    ("bge-small-en", BGE),
    ("bge-base-en", BGE),
    ("bge-large-en", BGE),
    ("mxbai-embed-large", BGE),
    ("snowflake-arctic-embed-m-v2", SNOWFLAKE_2),
    ("snowflake-arctic-embed-l-v2", SNOWFLAKE_2),
    ("snowflake-arctic-embed", BGE),
    ("nomic-embed-text", NOMIC),
    ("modernbert-embed", NOMIC),
    (
        "nomic-embed-code",
        &[("query", "Represent this query for searching relevant code: "), ("document", "")],
    ),
    (
        "qwen3-embedding",
        &[
            (
                "query",
                "Instruct: Given a web search query, retrieve relevant passages that answer the \
                 query\nQuery:",
            ),
            ("document", ""),
        ],
    ),
    (
        "embeddinggemma",
        &[("query", "task: search result | query: "), ("document", "title: none | text: ")],
    ),
];

const E5: &[(&str, &str)] = &[("query", "query: "), ("document", "passage: ")];
const BGE: &[(&str, &str)] =
    &[("query", "Represent this sentence for searching relevant passages: "), ("document", "")];
const BGE_CHINESE: &[(&str, &str)] =
    &[("query", "为这个句子生成表示以用于检索相关文章："), ("document", "")];
const SNOWFLAKE_2: &[(&str, &str)] = &[("query", "query: "), ("document", "")];
const NOMIC: &[(&str, &str)] = &[
    ("query", "search_query: "),
    ("document", "search_document: "),
    ("classification", "classification: "),
    ("clustering", "clustering: "),
];

/// How a model's name begins, in lower case, and the sizes that its card names for its vectors, longest first; those
/// above a model's own are another size of model's.
const MATRYOSHKA: &[(&str, &[usize])] = &[
    ("nomic-embed-text-v1.5", &[768, 512, 256, 128, 64]),
    ("modernbert-embed-base", &[768, 256]),
    ("mxbai-embed-large-v1", &[1024, 512]),
    ("snowflake-arctic-embed-m-v1.5", &[768, 256]),
    ("snowflake-arctic-embed-m-v2", &[768, 256]),
    ("snowflake-arctic-embed-l-v2", &[1024, 256]),
    // Any from 32 on; these are steps.
    ("qwen3-embedding", &[4096, 2560, 2048, 1024, 512, 256, 128, 64, 32]),
    ("embeddinggemma", &[768, 512, 256, 128]),
];

/// The sizes that the model of that name was trained for, none above `embedding_size`; none for other models.
pub(crate) fn matryoshka_dimensions(name: &str, embedding_size: usize) -> Vec<usize> {
    let name = name.to_lowercase();
    let found = MATRYOSHKA.iter().find(|(start, _)| name.starts_with(start));
    let sizes = found.map_or(&[][..], |(_, sizes)| sizes);
    sizes.iter().copied().filter(|&size| size <= embedding_size).collect()
}

/// The prompts of the model of that name, such as `bge-small-en-v1.5` or `nomic-embed-text-v1.5.Q8_0`.
pub(crate) fn prompts(name: &str) -> BTreeMap<String, String> {
    let name = name.to_lowercase();
    let found = PROMPTS.iter().find(|(start, _)| name.starts_with(start));
    let found = found.map_or(&[][..], |(_, prompts)| prompts);
    found.iter().map(|&(name, prompt)| (name.to_owned(), prompt.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_no_longer_than_a_models_vectors() {
        let gguf = matryoshka_dimensions("Nomic-Embed-Text-v1.5.Q8_0", 768);
        assert_eq!(gguf, [768, 512, 256, 128, 64]);
        assert_eq!(matryoshka_dimensions("Qwen3-Embedding-0.6B", 1024)[..2], [1024, 512]);
        for name in ["nomic-embed-text-v1", "all-MiniLM-L6-v2", "bge-m3", ""] {
            assert!(matryoshka_dimensions(name, 768).is_empty(), "{name}");
        }
    }

    #[test]
    fn prompts_are_found_by_how_a_name_begins() {
        assert_eq!(prompts("e5-small-v2")["document"], "passage: ");
        assert_eq!(prompts("multilingual-e5-base")["query"], "query: ");
        assert_eq!(prompts("Nomic-Embed-Text-v1.5.Q8_0")["query"], "search_query: ");
        assert!(prompts("bge-large-zh-v1.5")["query"].ends_with('：'));
        assert_eq!(prompts("snowflake-arctic-embed-l-v2.0")["query"], "query: ");
        assert!(prompts("snowflake-arctic-embed-l")["query"].starts_with("Represent"));
        for name in ["all-MiniLM-L6-v2", "multilingual-e5-large-instruct", "bge-m3", ""] {
            assert!(prompts(name).is_empty(), "{name}");
        }
    }
}
