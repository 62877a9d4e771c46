"""Resident memory of Python processes with a model, and what several of them share.

    python benches/memory.py MODEL [--processes 4]

Linux only: reads /proc/PID/smaps.
"""

import argparse
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
{imports}
from arrowembed import Embedder
model = Embedder(sys.argv[1])
if {use}:
    model.encode(["A text to touch every page of the weights."] * 4)
print("ready", flush=True)
sys.stdin.read()
"""


def start(model: str, *, imports: str = "", use: bool = False) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(imports=imports, use=use), model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"the process ended with status {process.wait()}")
    return process


def stop(process: "subprocess.Popen[str]") -> None:
    process.communicate()


def totals(pid: int, only: str = "") -> dict[str, int]:
    """Sums over the mappings of a process in bytes, of those whose path has `only` in it."""
    sums: dict[str, int] = {}
    counted = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if value.endswith(" kB"):
            if counted:
                sums[key] = sums.get(key, 0) + 1024 * int(value.split()[0])
        elif "-" in key.split()[0]:
            counted = only in line
    return sums


def mb(size: int) -> str:
    return f"{size / 1e6:8.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()

    for label, imports, use in (
        ("after load", "", False),
        ("after load, with pyarrow imported", "import pyarrow", False),
        ("after use", "", True),
    ):
        process = start(options.model, imports=imports, use=use)
        print(f"resident {label:<36} {mb(totals(process.pid)['Rss'])}")
        stop(process)

    print(f"\n{options.processes} processes that have used the model, the mapped weights alone:")
    processes = [start(options.model, use=True) for _ in range(options.processes)]
    for process in processes:
        weights = totals(process.pid, only=".arrow")
        shared = weights["Shared_Clean"] + weights["Shared_Dirty"]
        private = weights["Private_Clean"] + weights["Private_Dirty"]
        everything = totals(process.pid)
        own = everything["Private_Clean"] + everything["Private_Dirty"]
        print(
            f"  shared {mb(shared)}   private {mb(private)}   "
            f"all private memory of the process {mb(own)}"
        )
    for process in processes:
        stop(process)


if __name__ == "__main__":
    main()
