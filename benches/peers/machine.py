"""What the measurements were made on."""

import datetime as dt
import os
import platform
from pathlib import Path

INSTRUCTIONS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve"),
)


def field(text: str, *names: str) -> str:
    """The value of the first line of `/proc/cpuinfo` that has one of these names, or nothing."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def describe() -> dict[str, str]:
    cpu = Path("/proc/cpuinfo").read_text()
    flags = field(cpu, "flags", "Features").split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": field(cpu, "model name", "CPU part") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
