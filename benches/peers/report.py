"""The results as a page of tables."""

from collections.abc import Callable, Iterable, Sequence

from peers.lines import GGUF, LINES, OWN
from peers.results import MANY, ONE, START, Results

Row = Sequence[str]
NOTHING = "-"

ARITHMETIC = {line.name: line.arithmetic for line in LINES}
INTRODUCTION = (
    "all-MiniLM-L6-v2, medians of {rounds} interleaved rounds, each engine at the batch size that "
    "is best for it. Ratios are speeds as multiples of arrowembed's."
)
OURS = {line.name for line in LINES if line.engine == OWN}
AGAINST = (
    (OWN, "best float32 peer"),
    (OWN, "fastembed"),
    (OWN, "sentence-transformers"),
    ("arrowembed float16", OWN),
    ("arrowembed float16", "best float32 peer"),
    ("arrowembed float16", "fastembed"),
    ("arrowembed float16", "sentence-transformers"),
    ("arrowembed float16", "OpenVINO default"),
    ("arrowembed float16", "best int8 peer"),
    ("arrowembed bfloat16", OWN),
    ("arrowembed bfloat16", "OpenVINO default"),
    ("arrowembed bfloat16", "best int8 peer"),
    ("arrowembed int16", OWN),
    ("arrowembed int16", "best int8 peer"),
    ("arrowembed int8", "best int8 peer"),
    *((f"arrowembed {kind}", f"llama.cpp {kind}") for kind in GGUF),
)
"""Pairs of the summary: ours, and what it is compared with."""


def table(header: Row, rows: Iterable[Row]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def report(results: Results) -> str:
    """Markdown."""
    threads = sorted({results.threads, 1}, reverse=True)
    parts = [
        "# Engines side by side",
        INTRODUCTION.format(rounds=results.rounds),
        table(["machine", ""], results.machine.items()),
    ]
    if OWN in results.lines:
        parts += [f"## Ours against theirs, {results.threads} threads", against(results)]
    for count in threads:
        parts += [f"## Many texts, {named(count)}", many(results, count)]
    for count in threads:
        parts += [f"## One text at a time, p50, {named(count)}", one(results, count)]
    if results.threads > 1:
        parts += [f"## From 1 to {results.threads} threads", scaling(results)]
    parts += ["## Start and memory", start_and_memory(results)]
    parts += ["## Accuracy", accuracy(results)]
    parts += ["## Accuracy with the same token ids", same_ids(results)]
    parts += ["## What was compared", compared(results)]
    if results.failures:
        rows = [[name, reason.replace("|", "\\|")] for name, reason in results.failures.items()]
        parts += ["## What failed", table(["", "reason"], rows)]
    return "\n\n".join(parts) + "\n"


def named(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def median(results: Results, line: str, task: str, threads: int) -> float | None:
    sample = results.sample(line, task, threads)
    return sample.median if sample else None


def speed(results: Results, line: str, task: str, threads: int) -> float | None:
    """As a multiple of our float path's."""
    own, other = median(results, OWN, task, threads), median(results, line, task, threads)
    return own / other if own and other else None


def times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}"


def best(results: Results, arithmetic: str, task: str) -> str | None:
    """The fastest peer of this arithmetic at a task."""
    found = {
        name: value
        for name in results.lines
        if name not in OURS and ARITHMETIC.get(name) == arithmetic
        if (value := median(results, name, task, results.threads)) is not None
    }
    return min(found, key=lambda name: found[name]) if found else None


def against(results: Results) -> str:
    tasks = (*MANY, *ONE, START)

    def cell(ours: str, theirs: str, task: str) -> str:
        words = theirs.split()
        best_of = words[0] == "best"
        other = best(results, words[1], task) if best_of else theirs
        own_time = median(results, ours, task, results.threads)
        other_time = median(results, other, task, results.threads) if other else None
        if own_time is None or other_time is None:
            return NOTHING
        ratio = other_time / own_time if task in MANY else own_time / other_time
        return f"{ratio:.2f} ({other})" if best_of else f"{ratio:.2f}"

    header = ["", *(f"{t}, speed" for t in MANY), *(f"{t}, time" for t in ONE), "start, time"]
    rows = [
        [f"{ours} / {theirs}", *(cell(ours, theirs, task) for task in tasks)]
        for ours, theirs in AGAINST
        if ours in results.lines and (theirs in results.lines or theirs.startswith("best "))
    ]
    return table(header, rows)


def many(results: Results, threads: int) -> str:
    def cells(line: str, task: str) -> Row:
        sample = results.sample(line, task, threads)
        if sample is None:
            return [NOTHING] * 4
        return [
            f"{sample.texts / sample.median:.0f}",
            f"{sample.tokens / sample.median:.0f}",
            times(speed(results, line, task, threads)),
            str(sample.batch or NOTHING),
        ]

    tasks = [task for task in MANY if any(sample.task == task for sample in results.samples)]
    header = [""]
    for task in tasks:
        header += [f"{task}: texts/s", "tokens/s", "ratio", "batch"]
    rows = [[line, *(c for task in tasks for c in cells(line, task))] for line in results.lines]
    return table(header, rows)


def per_line(results: Results, header: Row, cells: Callable[[str], Row]) -> str:
    return table(["", *header], ([line, *cells(line)] for line in results.lines))


def one(results: Results, threads: int) -> str:
    def cells(line: str) -> Row:
        row: list[str] = []
        for task in ONE:
            seconds = median(results, line, task, threads)
            row.append(NOTHING if seconds is None else f"{1e3 * seconds:.2f}")
            row.append(times(speed(results, line, task, threads)))
        return row

    header = [cell for task in ONE for cell in (f"{task}: ms", "ratio")]
    return per_line(results, header, cells)


def scaling(results: Results) -> str:
    def cells(line: str) -> Row:
        row = []
        for task in (*MANY, *ONE):
            first = median(results, line, task, 1)
            last = median(results, line, task, results.threads)
            row.append(times(first / last if first and last else None))
        return row

    return per_line(results, [*MANY, *ONE], cells)


def start_and_memory(results: Results) -> str:
    def cells(line: str) -> Row:
        seconds = median(results, line, START, results.threads)
        memory = results.memory.get(line)
        sizes = (memory.loaded, memory.used, memory.private) if memory else ()
        return [
            NOTHING if seconds is None else f"{seconds:.2f}",
            *(f"{size / 1e6:.0f}" for size in sizes),
            *([NOTHING] * (3 - len(sizes))),
        ]

    header = [
        "process start to first vector, s",
        "MB after load",
        "MB after the mixed texts",
        "of these private in a second process",
    ]
    return per_line(results, header, cells)


def accuracy(results: Results) -> str:
    def cells(line: str) -> Row:
        found = results.accuracy.get(line)
        if found is None:
            return [NOTHING] * 4
        failed = f"{found.failed} ({found.together})" if found.together else str(found.failed)
        distances = [f"{1 - cosine:.1e}" for cosine in (found.mean, found.worst)]
        return [*distances, str(found.below), failed]

    header = ["1-cos to float64, mean", "worst", "texts over 0.01", "texts without a vector"]
    return per_line(results, header, cells)


def same_ids(results: Results) -> str:
    """GGUF files over the texts whose ids llama.cpp gets right."""
    rows = []
    for kind in GGUF:
        theirs = results.accuracy.get(f"llama.cpp {kind}")
        if theirs is None or theirs.right is None:
            continue
        for line in (f"arrowembed {kind}", f"llama.cpp {kind}"):
            found = results.accuracy.get(line)
            each = zip(found.each, theirs.right, strict=True) if found else ()
            lost = [1 - cosine for cosine, right in each if right and cosine is not None]
            if lost:
                mean = sum(lost) / len(lost)
                rows.append([line, str(len(lost)), f"{mean:.1e}", f"{max(lost):.1e}"])
    return table(["", "texts", "1-cos to float64, mean", "worst"], rows)


def compared(results: Results) -> str:
    settings = {line.name: line.settings for line in LINES}

    def cells(line: str) -> Row:
        about = ", ".join(f"{k} {v}" for k, v in results.about.get(line, {}).items())
        return [ARITHMETIC.get(line, NOTHING), settings.get(line, NOTHING), about or NOTHING]

    return per_line(results, ["arithmetic", "settings", "versions"], cells)
