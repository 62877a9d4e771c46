"""Compiles the modules that the service imports, and no others, to where bytecode is looked for.

What is imported in a container can neither be written there nor should be compiled at each start;
all modules together would be twenty megabytes more. The hash of its source goes with the bytecode,
so that modules of another build of Python are compiled anew instead of mistaken.
"""

import importlib
import py_compile
import sys
from contextlib import suppress

_IMPORTED = (
    "arrowembed.cli.app",
    "arrowembed.cli.keys",
    "arrowembed.cli.serve",
    "http.client",
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.spawn",
    "numpy",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.httptools_impl",
    # Of extras, which may be left out.
    "arrowembed.server.grpc.server",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.trace.export",
    "redis.asyncio",
)
"""Where imports start."""


def main() -> None:
    """Writes the bytecode."""
    for name in _IMPORTED:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if source is not None and source.endswith(".py"):
            py_compile.compile(
                source,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )


if __name__ == "__main__":
    main()
