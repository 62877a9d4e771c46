"""The main job in one minute: open a model, compare sentences, search among them.

`make demo` runs this on the real all-MiniLM-L6-v2.
"""

import sys
import time

import numpy as np

from arrowembed import Embedder

SENTENCES = [
    "The cat has been asleep on the windowsill all afternoon.",
    "A kitten is napping in the sun by the window.",
    "Our dog barks whenever the postman comes to the door.",
    "She took the puppy for a long walk along the river.",
    "Simmer the tomatoes with garlic and basil for twenty minutes.",
    "Fold the egg whites into the batter so that the cake stays light.",
    "This bakery sells the best sourdough bread in town.",
    "Season the soup with salt only at the very end.",
    "The central bank raised interest rates by half a percentage point.",
    "Shares fell after the company lowered its profit forecast.",
    "Inflation slowed for the third month in a row.",
    "He keeps a third of his savings in government bonds.",
    "The home team scored twice in the last five minutes.",
    "She broke the national record in the marathon.",
    "The match was called off because of heavy rain.",
    "He serves well, but his backhand loses him most games.",
    "The telescope photographed a galaxy thirteen billion light years away.",
    "Water on Mars may have flowed as recently as two billion years ago.",
    "A solar eclipse happens when the moon passes in front of the sun.",
    "The probe will reach Jupiter after a journey of six years.",
    "Doctors recommend at least seven hours of sleep a night.",
    "The vaccine protects children against measles.",
    "Walking half an hour a day lowers blood pressure.",
    "The patient recovered within a week of the operation.",
    "The train to Vienna leaves from platform nine.",
    "Our flight was delayed by three hours because of fog.",
    "We rented bicycles and rode along the coast.",
    "The hotel room looked out over the old harbour.",
    "The function returns an error if the file does not exist.",
    "A memory map lets several processes share one copy of a file.",
    "Write a test before you fix the bug.",
    "The compiler found a type error on line twelve.",
    "The orchestra played the symphony without a conductor.",
    "He learned to play the guitar by listening to old records.",
    "The novel tells the story of three sisters in a small town.",
    "The museum shows paintings from the seventeenth century.",
]

QUERIES = [
    "Which animals are resting?",
    "What is good for my health?",
    "news about the economy",
    "sharing data between programs",
]


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def main(name: str) -> None:
    started = time.perf_counter()
    model = Embedder(name)
    opened = time.perf_counter()
    model.encode("The first vector.")
    first = time.perf_counter()
    print(f"{name}: {model.dimension} dimensions, {model.max_seq_length} tokens at most")
    print(
        f"opened in {1000 * (opened - started):.1f} ms, "
        f"first vector {1000 * (first - opened):.1f} ms later"
    )

    vectors = model.encode(SENTENCES)
    chosen = [0, 1, 3, 8, 10, 16]
    print("\nHow similar are they? (cosine)")
    matrix = model.similarity(vectors[chosen], vectors[chosen])
    for number, (index, row) in enumerate(zip(chosen, matrix, strict=True), start=1):
        cells = " ".join(f"{value:5.2f}" for value in row)
        print(f"  {number} {shorten(SENTENCES[index], 48):<48} {cells}")

    print(f"\nWhat do they mean? (the best of {len(SENTENCES)} sentences)")
    scores = model.similarity(model.encode_query(QUERIES), vectors)
    for query, row in zip(QUERIES, scores, strict=True):
        print(f"  {query}")
        for index in np.argsort(-row)[:3]:
            print(f"    {row[index]:.2f}  {SENTENCES[index]}")

    # Numbered, so that no text is in the cache.
    texts = [f"{number}. {text}" for number in range(20) for text in SENTENCES]
    started = time.perf_counter()
    model.encode(texts)
    seconds = time.perf_counter() - started
    threads = model.info()["num_threads"]
    print(f"\n{len(texts)} sentences in {seconds:.2f} s: {len(texts) / seconds:.0f} a second")
    print(f"({threads} threads, {model.info()['isa']} kernels)")

    print(
        f"""
Try next:
  . .venv/bin/activate
  arrowembed similarity -m {name} "a warm day" "sunny weather" "tax return"
  arrowembed search -m {name} "error handling" --file README.md
  arrowembed embed -m {name} --file README.md --format npy --output readme.npy
  arrowembed info {name}
and, in Python:
  from arrowembed import Embedder
  Embedder("{name}").encode(["your", "texts"])"""
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "all-MiniLM-L6-v2")
