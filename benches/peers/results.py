"""What was measured, as it is written to `results.json`."""

import statistics
from dataclasses import dataclass, field

MANY = ("short", "mixed", "long")
ONE = ("12 tokens", "128 tokens")
START = "start"


@dataclass
class Sample:
    """One line at one task."""

    line: str
    task: str
    threads: int
    batch: int
    texts: int
    tokens: int
    """Of all texts together, special ones included and without padding."""
    seconds: list[float] = field(default_factory=list)
    """For all texts together; for a task with one text, for each."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Memory:
    """Bytes."""

    loaded: int
    """Resident when the model is open."""
    used: int
    """Resident after the mixed texts."""
    private: int
    """Of these, what a second process does not share with the first."""


@dataclass
class Accuracy:
    """Cosines to the float64 reference, over the golden texts."""

    mean: float
    worst: float
    below: int
    """Texts with a cosine below 0.99, which is another text to the engine or a wrong result."""
    failed: int
    """Texts without a vector."""
    together: str | None
    """Why the texts had to be given one by one."""
    each: list[float | None] = field(default_factory=list)
    """Of each text; None without a vector."""
    right: list[bool] | None = None
    """Whether each text has the reference's token ids; None where the engine does not tell."""


@dataclass
class Results:
    """Everything, by the names of the lines."""

    machine: dict[str, str]
    threads: int
    rounds: int
    lines: list[str] = field(default_factory=list)
    about: dict[str, dict[str, str]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def sample(self, line: str, task: str, threads: int) -> Sample | None:
        """What was measured, unless there is nothing."""
        for sample in self.samples:
            if (sample.line, sample.task, sample.threads) == (line, task, threads):
                return sample if sample.seconds else None
        return None
