"""A port that several processes listen on."""

from __future__ import annotations

import socket

from arrowembed.errors import InvalidArgumentError


def hold_port(host: str, port: int) -> socket.socket:
    """A socket that takes no connections, but keeps the port for those that do.

    Args:
        host: Address that they listen on.
        port: Port that they listen on; 0 finds a free one.

    Raises:
        InvalidArgumentError: Somebody else has it, or processes cannot share ports on this system.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise InvalidArgumentError("grpc_port: on this system only one worker can have it")
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind(address)
    except OSError:
        held.close()
        raise cannot_listen(address_of(host, port)) from None
    return held


def address_of(host: str, port: int) -> str:
    """As gRPC writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(address: str) -> InvalidArgumentError:
    """The error where somebody else has a port."""
    return InvalidArgumentError(f"grpc_port: cannot listen on {address}; is it in use?")
