"""The service over gRPC; needs the extra `arrowembed[grpc]`.

Clients find messages and stub in `api`.
"""

from arrowembed.errors import MissingDependencyError

try:
    from arrowembed.server.grpc import api
    from arrowembed.server.grpc.server import GrpcServer
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == "arrowembed":
        raise
    raise MissingDependencyError.of(
        error.name, purpose="gRPC", install='"arrowembed[grpc]"'
    ) from error

__all__ = ["GrpcServer", "api"]
