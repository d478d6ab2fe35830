"""Descriptions from a file: every value may be wrong or hostile."""

from __future__ import annotations

import math

import pytest
import torch

from diffsplit.errors import InputError
from diffsplit.operators import (
    GaussianMatrix,
    ScaledIdentity,
    from_config,
)
from diffsplit.operators.registry import _Budget, _build

SHAPE = (3, 8, 8)


GAUSSIAN = {"kind": "gaussian", "shape": [3, 8, 8], "rows": 5, "seed": 0}
RANDOMIZED = GAUSSIAN | {"kind": "randomized"}
MASK = {"kind": "mask", "shape": [3, 8, 8], "fraction": 0.5, "seed": 0}
BOX = {"kind": "mask", "shape": [3, 8, 8], "box": [0, 0, 4, 4]}
BITS = {"kind": "mask", "shape": [1, 4, 4], "bits": "//8=", "channels_apart": False}


@pytest.mark.parametrize("config", [GAUSSIAN, RANDOMIZED, MASK, BOX, BITS], ids=str)
def test_the_examples_that_the_refusals_spoil_are_good(config):
    assert from_config(config).size_out >= 1


def _nested(depth: int) -> dict[str, object]:
    config: dict[str, object] = dict(MASK)
    for _ in range(depth):
        config = {"kind": "scaled", "operator": config, "factor": 1.0}
    return config


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        "gaussian",
        {},
        {"kind": None},
        {"kind": ["mask"]},
        {"kind": "unheard-of"},
        {"kind": "gaussian"},
        GAUSSIAN | {"surprise": 1},
        GAUSSIAN | {"dtype": "int8"},
        GAUSSIAN | {"dtype": ["float32"]},
        GAUSSIAN | {"device": "cuda"},
        *(base | {"seed": s} for base in (GAUSSIAN, RANDOMIZED, MASK) for s in
          (-1, 2**32, 10**400, 0.0, 0.5, True, None, "0", [0], math.nan)),
        *(base | {"shape": s} for base in (GAUSSIAN, RANDOMIZED, MASK, BOX, BITS) for s in
          ([], 8, "388", None, [3, 8, 0], [3, -8, 8], [3, 8, 8.0], [True, 8, 8], [2**14, 2**13, 1],
           [10**400, 1, 1], [1] * 10**5, {"0": 3}, [[3], 8, 8], [3, 8, None])),
        *(base | {"shape": [8, 8]} for base in (MASK, BOX, BITS)),
        *(base | {"rows": r} for base in (GAUSSIAN, RANDOMIZED) for r in
          (0, -1, 5.0, "5", None, True, [5], 10**400, 2**32)),
        RANDOMIZED | {"rows": 193},
        RANDOMIZED | {"transform": "fft"},
        RANDOMIZED | {"transform": ["dct"]},
        *(MASK | {"fraction": f} for f in
          (0, -0.1, 1.0001, math.nan, math.inf, "0.5", None, True, [0.5], 1e-9, 10**400)),
        MASK | {"channels_apart": 1},
        *(BOX | {"box": b} for b in
          ([0, 0, 8, 8], [0, 0, 9, 1], [8, 0, 1, 1], [0, 8, 1, 1], [-1, 0, 2, 2], [0, 0, 0, 1],
           [5, 5, 4, 1], [0, 0, 4], [0, 0, 4, 4, 4], [0, 0, 4, 4.0], "0044", None)),
        BOX | {"fraction": 0.5},
        *(BITS | {"bits": b} for b in
          ("", "//8", "//////8=", "AAA=", "/\u00e98=", "*/8=", 5, None, ["//8="], "/=8=", "====")),
        BITS | {"channels_apart": "no"},
        {"kind": "scaled", "operator": MASK, "factor": 0},
        {"kind": "scaled", "operator": MASK, "factor": "1"},
        {"kind": "scaled", "operator": 5, "factor": 1.0},
        {"kind": "composed", "outer": MASK, "inner": MASK},
        {"kind": "stacked", "operators": []},
        {"kind": "stacked", "operators": MASK},
        {"kind": "stacked", "operators": [MASK] * 16},
        {"kind": "stacked", "operators": [MASK, MASK | {"shape": [1, 8, 8]}]},
    ],
    ids=lambda config: str(config)[:90],
)  # fmt: skip
def test_hostile_or_mistaken_descriptions_are_refused_in_a_sentence(config):
    with pytest.raises(InputError) as caught:
        from_config(config)
    assert 20 < len(str(caught.value)) < 400
    assert str(caught.value).endswith(".")


def test_parts_of_one_description_share_the_limits_of_memory():
    device, twice = torch.device("cpu"), {"kind": "stacked", "operators": [MASK] * 2}
    _build(twice, device, _Budget(pixels=2 * 192))
    with pytest.raises(InputError, match="too large"):
        _build(twice, device, _Budget(pixels=2 * 192 - 1))
    twice["operators"] = [GAUSSIAN] * 2
    _build(twice, device, _Budget(entries=2 * 5 * 192))
    with pytest.raises(InputError, match="too large"):
        _build(twice, device, _Budget(entries=2 * 5 * 192 - 1))


def test_a_gaussian_matrix_beyond_the_limits_is_refused_at_once(monkeypatch):
    with pytest.raises(InputError, match="RandomizedTransform"):
        GaussianMatrix((3, 256, 256), 2**15, 0)
    monkeypatch.setattr("diffsplit.operators.dense._memory", lambda: 1e5)
    with pytest.raises(InputError, match="float16"):
        GaussianMatrix(SHAPE, 192, 0)
    assert GaussianMatrix(SHAPE, 100, 0).size_out == 100


@pytest.mark.parametrize("depth", [16, 5000])
def test_depth_of_a_description_is_limited(depth):
    with pytest.raises(InputError, match="too large"):
        from_config(_nested(depth))
    assert from_config(_nested(15)).gram == ScaledIdentity(1.0)


@pytest.mark.parametrize("entry", ["kind", "shape", "rows", "seed", "dtype"])
def test_a_deep_or_huge_value_is_refused_without_being_printed(entry):
    for value in (_nested(5000), [[]] * 10**6, "9" * 10**6, -(10**5000), {1: 2}, {entry: b""}):
        with pytest.raises(InputError) as caught:
            from_config(GAUSSIAN | {entry: value})
        assert len(str(caught.value)) < 400
