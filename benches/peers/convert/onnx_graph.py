"""A BERT encoder as an ONNX graph, from its Hugging Face folder.

The hub offers such files; without it, this one has the same operators (MatMul, LayerNormalization,
Softmax, Gelu) from the same weights, so that runtimes can be measured anywhere.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from safetensors.numpy import load_file


class Graph:
    """Nodes and weights, collected while the model is written down."""

    def __init__(self, weights: dict[str, np.ndarray], epsilon: float) -> None:
        self.weights = weights
        self.epsilon = epsilon
        self.nodes: list[object] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def linear(self, x: str, name: str) -> str:
        transposed = np.ascontiguousarray(self.weights[f"{name}.weight"].T)
        product = self.node("MatMul", x, self.constant(f"{name}.weight_t", transposed))
        return self.node("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=self.epsilon)


def write(folder: Path, target: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    graph = Graph(load_file(folder / "model.safetensors"), config["layer_norm_eps"])

    def ints(name: str, *values: int) -> str:
        return graph.constant(name, np.array(values, dtype=np.int64))

    def floats(name: str, value: float) -> str:
        return graph.constant(name, np.array(value, dtype=np.float32))

    words = graph.node("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    types = graph.node(
        "Gather", graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"
    )
    shape = graph.node("Shape", "input_ids")
    length = graph.node("Gather", shape, ints("one", 1), axis=0)
    positions = graph.node(
        "Slice",
        graph.weight("embeddings.position_embeddings.weight"),
        ints("zero", 0),
        length,
        ints("axis", 0),
    )
    x = graph.node("Add", graph.node("Add", words, types), positions)
    x = graph.norm(x, "embeddings.LayerNorm")

    # One axis at a time is what ONNX Runtime's optimiser knows.
    mask = graph.node("Unsqueeze", "attention_mask", ints("axis_1", 1))
    mask = graph.node("Unsqueeze", mask, ints("axis_2", 2))
    mask = graph.node("Cast", mask, to=TensorProto.FLOAT)
    mask = graph.node("Sub", floats("unmasked", 1.0), mask)
    mask = graph.node("Mul", mask, floats("minus_large", -1e9))
    split = ints("split", 0, 0, heads, hidden // heads)
    merged = ints("merged", 0, 0, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"

        def part(kind: str, x: str = x, prefix: str = prefix) -> str:
            y = graph.linear(x, f"{prefix}.attention.self.{kind}")
            return graph.node("Reshape", y, split)

        query = graph.node("Transpose", part("query"), perm=[0, 2, 1, 3])
        key = graph.node("Transpose", part("key"), perm=[0, 2, 3, 1])
        value = graph.node("Transpose", part("value"), perm=[0, 2, 1, 3])
        scores = graph.node("MatMul", query, key)
        scores = graph.node("Div", scores, floats("root", np.sqrt(hidden / heads)))
        weights = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
        mixed = graph.node("Transpose", graph.node("MatMul", weights, value), perm=[0, 2, 1, 3])
        mixed = graph.node("Reshape", mixed, merged)
        mixed = graph.linear(mixed, f"{prefix}.attention.output.dense")
        x = graph.norm(graph.node("Add", mixed, x), f"{prefix}.attention.output.LayerNorm")
        inner = graph.linear(x, f"{prefix}.intermediate.dense")
        inner = graph.node("Gelu", inner)
        output = graph.linear(inner, f"{prefix}.output.dense")
        x = graph.norm(graph.node("Add", output, x), f"{prefix}.output.LayerNorm")

    graph.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", hidden]
    )
    initializers = [numpy_helper.from_array(v, name) for name, v in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "bert", inputs, [output], initializers),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    save(model, target)
