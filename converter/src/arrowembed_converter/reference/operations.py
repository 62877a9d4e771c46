"""The operations of all architectures, each in its plain formula.

Token matrices are (tokens, hidden). Where there are heads they come first: (heads, tokens, head
dimension).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
"""(tokens, tokens): whether the token of the row attends to the token of the column."""


def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """Ba et al. 2016: each token to mean 0 and variance 1, then a gain and a bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    scaled: Array = centred / np.sqrt(variance + eps) * weight
    return scaled if bias is None else scaled + bias


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """Zhang and Sennrich 2019: each token divided by its root mean square, then a gain."""
    scaled: Array = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return scaled * gain


def softmax(x: Array) -> Array:
    """Along the last axis; the largest value is taken off first, so that exp cannot overflow."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def split_heads(x: Array, num_heads: int) -> Array:
    """(tokens, heads x head dimension) to (heads, tokens, head dimension)."""
    return x.reshape(len(x), num_heads, -1).transpose(1, 0, 2)


def merge_heads(x: Array) -> Array:
    """(heads, tokens, head dimension) to (tokens, heads x head dimension)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float,
    mask: Mask | None = None,
    bias: Array | None = None,
) -> Array:
    """Vaswani et al. 2017, per head: softmax(QK' x scale + bias) V, over the tokens of the mask.

    Ainslie et al. 2023 (grouped queries): with fewer heads of keys and values than of queries,
    neighbouring heads of queries share one.
    """
    group = len(query) // len(key)
    key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)
    scores: Array = query @ key.transpose(0, 2, 1) * scale
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    mixed: Array = softmax(scores) @ value
    return mixed


def distances(tokens: int) -> NDArray[np.int64]:
    """(tokens, tokens): position of the row minus position of the column."""
    positions = np.arange(tokens)
    apart: NDArray[np.int64] = positions[:, None] - positions[None, :]
    return apart


def causal(tokens: int) -> Mask:
    """Each token attends to itself and to those before it."""
    mask: Mask = distances(tokens) >= 0
    return mask


def within(tokens: int, reach: int) -> Mask:
    """Each token attends to those at most `reach` away, on either side."""
    mask: Mask = np.abs(distances(tokens)) <= reach
    return mask


def rope(x: Array, theta: float) -> Array:
    """Su et al. 2021, rotary position embedding of (heads, tokens, head dimension).

    The pair (x[j], x[j + d/2]) is turned by the angle position x theta^(-2j/d): the first half is
    paired with the second, as in `rotate_half` of Hugging Face, not neighbours as in the paper.
    The frequencies are rounded to float32, as Hugging Face's `inv_freq` is.
    """
    tokens, dimension = x.shape[1:]
    exponents = (np.arange(0, dimension, 2, dtype=np.float32) / np.float32(dimension)).astype(float)
    frequencies = np.float32(1) / (theta**exponents).astype(np.float32)
    angles = np.arange(tokens)[:, None] * frequencies.astype(np.float64)
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = x[..., : dimension // 2], x[..., dimension // 2 :]
    turned: Array = np.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return turned


def positions_after_padding(ids: list[int], padding_id: int) -> NDArray[np.int64]:
    """`create_position_ids_from_input_ids` of Hugging Face's RoBERTa: counted from padding_id + 1.

    A padding token in the text itself is not counted and has the position padding_id.
    """
    counted = np.array(ids, np.int64) != padding_id
    positions: NDArray[np.int64] = np.cumsum(counted) * counted + padding_id
    return positions


def gelu(x: Array) -> Array:
    """Hendrycks and Gimpel 2016, `x * Phi(x)`, with the error function itself.

    NumPy has none, the math module does.
    """
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().tolist()), np.float64, x.size)
    activated: Array = 0.5 * x * (1 + erf.reshape(x.shape))
    return activated


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU, from the same paper."""
    activated: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return activated


def relu(x: Array) -> Array:
    """`max(x, 0)`."""
    return np.maximum(x, 0.0)


def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`, as a tanh, which does not overflow."""
    activated: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return activated


def silu(x: Array) -> Array:
    """Elfwing et al. 2017, `x * sigmoid(x)`."""
    return x * sigmoid(x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
}
"""Hugging Face's `hidden_act` to the function."""
