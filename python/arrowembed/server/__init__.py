"""The service over HTTP; needs the extra `arrowembed[server]`.

>>> from arrowembed.server import create_app
"""

from arrowembed.errors import MissingDependencyError

try:
    from arrowembed.server.app import create_app
    from arrowembed.server.settings import ServerSettings, read_settings
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "arrowembed":
        raise
    raise MissingDependencyError.of(
        error.name, purpose="the service", install='"arrowembed[server]"'
    ) from error

__all__ = ["ServerSettings", "create_app", "read_settings"]
