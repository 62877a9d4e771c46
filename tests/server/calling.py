"""Calls to a service over gRPC, with grpcio's own client."""

import json
from contextlib import contextmanager

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from arrowembed.server.grpc import api

SAID = "gRPC on "


class Channel:
    """A connection to a service; `stub` has its methods."""

    def __init__(self, channel):
        self.channel = channel
        self.stub = api.EmbeddingServiceStub(channel)

    def embed(self, *texts, metadata=(), timeout=60, **fields):
        """The answer to a request of texts."""
        request = api.EmbedRequest(texts=texts, **fields)
        return self.stub.Embed(request, metadata=metadata, timeout=timeout)

    def raw(self, method, *, stream=False):
        """A method as bytes in, bytes out."""
        make = self.channel.stream_stream if stream else self.channel.unary_unary
        return make(f"/{api.SERVICE}/{method}", None, None)


class Refused:
    """What a call was refused with: the same in its status, its metadata and its details."""

    def __init__(self, error):
        assert isinstance(error, grpc.RpcError)
        self.status = error.code().name
        self.message = error.details()
        self.metadata = dict(error.trailing_metadata() or ())
        self.code = self.metadata.get("error-code")
        self.details = self.info = None
        if self.code is not None:
            self.details = rpc_status.from_call(error).details
            info = ErrorInfo()
            assert self.details[0].Unpack(info)
            assert (info.reason, info.domain) == (self.code.upper(), "arrowembed")
            self.info = dict(info.metadata)


def refused(call, *arguments, **options):
    """What a call is refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return Refused(caught.value)


@contextmanager
def calling(service, credentials=None, **options):
    """A channel to a service that runs in this process."""
    address = f"localhost:{service.app.state.grpc.port}"
    options = list(options.items())
    channel = (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    )
    with channel:
        yield Channel(channel)


def address_of(process):
    """Where a process listens, as its log says."""
    events = (json.loads(line)["event"] for line in process.log.read_text().splitlines())
    return next(event.removeprefix(SAID) for event in events if event.startswith(SAID))


def numbered(*requests):
    """Requests of a stream: texts, or messages, with their place as id."""
    for number, given in enumerate(requests):
        request = given if isinstance(given, api.EmbedRequest) else api.EmbedRequest(texts=given)
        yield api.EmbedStreamRequest(id=number, request=request)


def nothing(end):
    """Requests of which none comes, until an event."""
    end.wait(60)
    yield from ()
