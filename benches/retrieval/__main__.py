"""Compares the kinds of stores: what they find, and how long it takes.

    cd benches && python -m retrieval PARAGRAPHS.tsv QUESTIONS.tsv --model MODEL

Both files are tab-separated, with a header row and without quoting. The first has the columns `pid`
and `text`, the second `question` and `pid`, the paragraph that answers it. Latencies are of single
searches for ten entries among `--entries` vectors: those of the paragraphs and generated ones.
"""

import argparse
import csv
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from peers.machine import describe

from arrowembed import Embedder
from retrieval import quality, speed


def rows(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paragraphs", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=500, help="of which latency is measured")
    parser.add_argument("--limit", type=int, help="use only so many questions")
    parser.add_argument("--indexes", nargs="*", default=["ivf_pq", "ivf_hnsw_sq"])
    options = parser.parse_args()

    model = Embedder(options.model, cache_size=0)
    paragraphs = {row["pid"]: row["text"] for row in rows(options.paragraphs)}
    questions = rows(options.questions)[: options.limit]
    vectors = model.encode_document(list(paragraphs.values()))
    queries = model.encode_query([row["question"] for row in questions])
    print(*(f"{name}: {value}" for name, value in describe().items()), sep="\n", end="\n\n")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        found = quality.found(folder, model, paragraphs, vectors, queries)
        print(f"{len(questions)} questions, {len(paragraphs)} paragraphs, {options.model}\n")
        print("| | recall@1 | recall@5 | nDCG@10 |\n|---|---|---|---|")
        for backend, ids in found.items():
            figures = quality.figures(ids, [row["pid"] for row in questions])
            print(f"| {backend} |", " | ".join(f"{value:.4f}" for value in figures.values()), "|")
        same = len({str(ids) for ids in found.values()}) == 1
        print(f"\nBoth find the same paragraphs in the same order: {'yes' if same else 'NO'}\n")

        every = speed.more(vectors, options.entries)
        searches, seconds = speed.stores(stack, folder / "speed", every, options.indexes)
        step = max(1, len(queries) // options.queries)
        asked = queries[::step][: options.queries]
        results = speed.measured(searches, asked, every)
        print(f"{len(every)} entries of {every.shape[1]} numbers, {len(asked)} single searches\n")
        print("| | p50 ms | p95 ms | times lightweight (p50) | recall@10 | made in s |")
        print("|---|---|---|---|---|---|")
        for kind, result in results.items():
            ratio = result["p50"] / results["lightweight"]["p50"]
            print(
                f"| {kind} | {result['p50']:.2f} | {result['p95']:.2f} | {ratio:.2f} | "
                f"{result['recall']:.4f} | {seconds[kind]:.1f} |"
            )
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
