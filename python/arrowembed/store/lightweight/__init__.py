"""The store that needs no server and no index: exact search over mapped Arrow files."""

from arrowembed.errors import MissingDependencyError

try:
    import pyarrow as _  # noqa: F401, ICN001
except ImportError as error:
    raise MissingDependencyError.of(
        "pyarrow", purpose="a lightweight store", install='"arrowembed[arrow]"'
    ) from error

from arrowembed.store.lightweight.store import LightweightStore

__all__ = ["LightweightStore"]
