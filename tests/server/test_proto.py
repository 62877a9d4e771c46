"""The modules that were made from the .proto file, beside what would be made of it now."""

import re
import runpy
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from arrowembed.server.grpc._generated import embedding_pb2, embedding_pb2_grpc

ROOT = Path(__file__).parents[2]


def test_what_was_made_is_up_to_date(tmp_path):
    script = runpy.run_path(str(ROOT / "proto/generate.py"))
    made = script["generate"](tmp_path)
    assert [path.name for path in made] == [
        "embedding_pb2.py",
        "embedding_pb2.pyi",
        "embedding_pb2_grpc.py",
    ]
    for path in made:
        kept = script["TARGET"] / path.name
        assert kept.read_text() == path.read_text(), f"{kept.name}: run make proto"


def test_the_extra_asks_for_what_was_made_for():
    """Modules refuse packages that are older than what made them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = map(Requirement, project["optional-dependencies"]["grpc"])
    wanted = {requirement.name: str(requirement.specifier) for requirement in extra}
    assert wanted["grpcio"] == f">={embedding_pb2_grpc.GRPC_GENERATED_VERSION}"
    source = Path(embedding_pb2.__file__).read_text()
    (protobuf,) = re.findall(r"^# Protobuf Python Version: (.*)$", source, re.MULTILINE)
    assert wanted["protobuf"] == f">={protobuf}"
