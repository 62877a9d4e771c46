"""Smaller vectors, against sentence-transformers' formulas stated in NumPy."""

import logging

import numpy as np
import pytest

from arrowembed import quantize_embeddings
from arrowembed.errors import InvalidArgumentError

RANDOM = np.random.default_rng(11)
VECTORS = RANDOM.normal(0, 0.05, (200, 48)).astype(np.float32)
RANGES = np.stack((VECTORS.min(axis=0), VECTORS.max(axis=0)))


def sentence_transformers(vectors, precision, ranges):
    """What `sentence_transformers.quantize_embeddings` computes, from its description."""
    if precision in ("int8", "uint8"):
        lowest, highest = ranges
        steps = (highest - lowest) / 255
        levels = (vectors - lowest) / steps
        return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)
    bits = np.packbits(vectors > 0, axis=1)
    return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_formulas(precision):
    expected = sentence_transformers(VECTORS, precision, RANGES)
    quantized = quantize_embeddings(VECTORS, precision, ranges=RANGES)
    assert quantized.dtype == expected.dtype
    np.testing.assert_array_equal(quantized, expected)


def test_float16():
    quantized = quantize_embeddings(VECTORS, "float16")
    assert quantized.dtype == np.float16
    np.testing.assert_array_equal(quantized, VECTORS.astype(np.float16))


def test_float32_is_unchanged():
    np.testing.assert_array_equal(quantize_embeddings(VECTORS, "float32"), VECTORS)


def test_ranges_come_from_the_vectors_or_a_calibration():
    of_vectors = quantize_embeddings(VECTORS, "int8")
    np.testing.assert_array_equal(of_vectors, quantize_embeddings(VECTORS, "int8", RANGES))
    calibrated = quantize_embeddings(VECTORS[:3], "int8", calibration_embeddings=VECTORS)
    np.testing.assert_array_equal(calibrated, of_vectors[:3])


def test_values_outside_the_ranges_are_clipped():
    wide = quantize_embeddings(VECTORS * 10, "uint8", RANGES)
    levels = (VECTORS * 10 - RANGES[0]) / ((RANGES[1] - RANGES[0]) / 255)
    assert (wide[levels >= 255] == 255).all()
    assert (wide[levels <= 0] == 0).all()


def test_a_dimension_without_extent():
    same = np.ones((2, 8), dtype=np.float32)
    quantized = quantize_embeddings(same, "uint8", calibration_embeddings=same)
    assert (quantized == quantized[0, 0]).all()


def test_one_vector_stays_one_vector():
    assert quantize_embeddings(VECTORS[0], "ubinary").shape == (6,)
    assert quantize_embeddings(VECTORS[0], "int8", RANGES).shape == (48,)


def test_a_width_that_is_no_multiple_of_eight_is_filled_with_zero_bits():
    np.testing.assert_array_equal(
        quantize_embeddings(VECTORS[:, :13], "ubinary"), np.packbits(VECTORS[:, :13] > 0, axis=1)
    )


def test_few_vectors_give_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "arrowembed"):
        quantize_embeddings(VECTORS[:99], "int8")
        quantize_embeddings(VECTORS, "int8")
        quantize_embeddings(VECTORS[:99], "int8", RANGES)
    assert len(caplog.records) == 1
    assert "only 99 vectors" in caplog.text


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        (VECTORS, {"precision": "int4"}, "int4"),
        (VECTORS[0], {"precision": "int8"}, "1 vector cannot"),
        (VECTORS[None], {"precision": "binary"}, "3 dimensions"),
        (VECTORS, {"precision": "int8", "ranges": RANGES[:1]}, "ranges: shape"),
        (VECTORS, {"precision": "int8", "ranges": RANGES[:, :3]}, "ranges: shape"),
        (VECTORS, {"precision": "int8", "calibration_embeddings": RANGES[:, :3]}, "calibration"),
    ],
)
def test_what_cannot_be_quantized_is_named(vectors, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        quantize_embeddings(vectors, **options)


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_encode_quantizes_its_vectors(model, texts, precision):
    vectors = model.encode(texts)
    np.testing.assert_array_equal(
        model.encode(texts, precision=precision), quantize_embeddings(vectors, precision)
    )


def test_encode_quantizes_one_text(model, texts):
    vectors = model.encode(texts)
    ranges = np.stack((vectors.min(axis=0), vectors.max(axis=0)))
    np.testing.assert_array_equal(
        model.encode(texts[1], precision="int8", ranges=ranges),
        quantize_embeddings(vectors[1], "int8", ranges),
    )
    with pytest.raises(InvalidArgumentError, match="pass ranges or calibration_embeddings"):
        model.encode(texts[1], precision="int8")
