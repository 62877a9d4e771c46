"""What a user of fastembed would put behind HTTP: FastAPI, a thread for each request.

    uvicorn load.fastembed_service:app

`FASTEMBED_MODEL` is the folder that `benches/peers` made for fastembed.
"""

import os
from pathlib import Path

import orjson
from fastapi import FastAPI, Response
from peers.engines import fastembed as engine
from pydantic import BaseModel

app = FastAPI()
encode = engine.load(
    Path(os.environ["FASTEMBED_MODEL"]), int(os.environ["FASTEMBED_THREADS"]), one=False
)


class Request(BaseModel):
    texts: list[str]


@app.post("/embed")
def embed(request: Request) -> Response:
    vectors = encode(request.texts, len(request.texts))
    body = orjson.dumps({"embeddings": list(vectors)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}
