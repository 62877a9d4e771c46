"""Opens a model of seven billion parameters, and computes beside llama.cpp.

    cd benches && python -m large [--tokens 128 512] [--rounds 3]

`make bench-large` calls it. The file (4.38 GB) and llama.cpp's environment are made under `.peers`
where they are not yet there. llama.cpp arranges a copy of the weights for its kernels: both engines
together take 13 GB.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from peers import environments
from peers.lines import OWN
from peers.measure import shuffled
from peers.process import Worker
from peers.report import table
from texts import prose, token_counts

from arrowembed import Embedder

ROOT = Path(__file__).parents[2]
BENCHES = ROOT / "benches"
PEER = "llama-cpp-python"
OPENING = """
import sys, time
from arrowembed import Embedder
started = time.perf_counter()
Embedder(sys.argv[1])
print(time.perf_counter() - started)
"""


def made(home: Path) -> Path:
    """The model file."""
    file = home / "large" / "nomic-embed-code-shape-Q4_K_M.gguf"
    if not file.exists():
        print("writing the model", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        python = environments.python(home, "gguf")
        command = [str(python), "-m", "large.model", str(unfinished)]
        environments.run(command, home / "logs" / "large.log", PYTHONPATH=str(BENCHES))
        unfinished.rename(file)
    return file


def opening(model: Path, rounds: int) -> float:
    """Median of seconds, each in a process of its own."""
    command = [sys.executable, "-c", OPENING, str(model)]
    runs = [subprocess.run(command, check=True, capture_output=True) for _ in range(rounds)]
    return statistics.median(float(run.stdout) for run in runs)


def passages(model: Path, lengths: list[int]) -> dict[int, str]:
    """For each length a text of about so many tokens, by how many it has."""
    embedder, words = Embedder(model), prose()

    def tokens(count: int) -> int:
        return token_counts([" ".join(words[:count])], embedder)[0]

    counts = [length * length // tokens(length) for length in lengths]
    return {tokens(count): " ".join(words[:count]) for count in counts}


def main() -> None:
    parser = argparse.ArgumentParser(prog="large", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".peers")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    (options.home / "logs").mkdir(parents=True, exist_ok=True)

    model = made(options.home)
    texts = passages(model, options.tokens)
    opened = opening(model, options.rounds)
    seconds: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        workers = {}
        for name in (OWN, PEER):
            settings = {
                "engine": name,
                "model": str(model),
                "threads": options.threads,
                "one": True,
                "options": {"n_batch": max(texts)} if name == PEER else {},
            }
            python = environments.python(options.home, name)
            worker = Worker(python, settings, options.home / "logs" / f"large-{name}.log")
            workers[name] = stack.enter_context(worker)
            worker.ready()
        for number in range(options.rounds):
            for name, worker in shuffled(workers, number).items():
                for tokens, text in texts.items():
                    answer = worker.ask(texts=[text])
                    seconds.setdefault((name, tokens), []).append(answer["seconds"][0])
        memory = {name: worker.ask(memory=True) for name, worker in workers.items()}

    def cells(name: str) -> list[str]:
        rates = [tokens / statistics.median(seconds[name, tokens]) for tokens in texts]
        sizes = (memory[name][key] / 1e9 for key in ("peak", "private"))
        return [name, *(f"{rate:.1f}" for rate in rates), *(f"{size:.2f}" for size in sizes)]

    header = ["", *(f"{tokens} tokens: tokens/s" for tokens in texts)]
    header += ["resident at most, GB", "private, GB"]
    size = model.stat().st_size
    print(f"\nfile {size / 1e9:.2f} GB, {options.threads} threads, medians of {options.rounds}")
    print(
        f"opened in {1e3 * opened:.0f} ms; resident at most {memory[OWN]['peak'] / size:.2f} files"
    )
    print(f"\n{table(header, [cells(name) for name in workers])}")


if __name__ == "__main__":
    main()
