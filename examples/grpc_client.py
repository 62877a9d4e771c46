"""A client of the service over gRPC: vectors in bytes, a stream of requests, and errors.

    arrowembed serve all-MiniLM-L6-v2 --grpc-port 50051
    python examples/grpc_client.py localhost:50051

Where the service asks for a key, `ARROWEMBED_API_KEY` has it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import grpc
import numpy as np

from arrowembed.server.grpc import api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TEXTS = [
    "The cat has been asleep on the windowsill all afternoon.",
    "A kitten is napping in the sun by the window.",
    "The central bank raised interest rates by half a percentage point.",
]
SECONDS = 10.0
"""After so long the service is not waited for any more, and gives up."""


def vectors_of(response: api.EmbedResponse) -> NDArray[np.float32]:
    """Vectors that came packed, shape (n, dim); their memory is the message's."""
    return np.frombuffer(response.packed, "<f4").reshape(-1, response.dimensions)


def requests() -> Iterator[api.EmbedStreamRequest]:
    """One request for each text; none waits for the answer to the one before."""
    for number, text in enumerate(TEXTS):
        request = api.EmbedRequest(texts=[text], format=api.VECTOR_FORMAT_PACKED)
        yield api.EmbedStreamRequest(id=number, request=request)


def main(address: str) -> None:
    key = os.environ.get("ARROWEMBED_API_KEY")
    metadata = [("authorization", f"Bearer {key}")] if key else []
    with grpc.insecure_channel(address) as channel:
        stub = api.EmbeddingServiceStub(channel)

        info = stub.Info(api.InfoRequest(), timeout=SECONDS, metadata=metadata)
        print(f"arrowembed {info.version} with {', '.join(model.name for model in info.models)}")

        request = api.EmbedRequest(texts=TEXTS, format=api.VECTOR_FORMAT_PACKED)
        vectors = vectors_of(stub.Embed(request, timeout=SECONDS, metadata=metadata))
        print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers")

        compared = api.SimilarityRequest(source=TEXTS[0], targets=TEXTS[1:])
        answer = stub.Similarity(compared, timeout=SECONDS, metadata=metadata)
        for text, similarity in zip(TEXTS[1:], answer.similarities, strict=True):
            print(f"{similarity:6.3f}  {text}")

        for answer in stub.EmbedStream(requests(), timeout=SECONDS, metadata=metadata):
            if answer.WhichOneof("answer") == "error":
                sys.exit(f"request {answer.id}: {answer.error.code}: {answer.error.message}")
            same = np.allclose(vectors_of(answer.response)[0], vectors[answer.id], atol=1e-6)
            print(f"request {answer.id} of the stream: {'the same vector' if same else 'another'}")

        try:
            stub.Embed(api.EmbedRequest(), timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            code = next(m.value for m in error.trailing_metadata() if m.key == "error-code")
            print("refused:", error.code().name, code, error.details(), sep=" | ")


if __name__ == "__main__":
    main(sys.argv[1])
