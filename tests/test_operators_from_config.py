"""Descriptions from a file: old ones mean what they meant, wrong or hostile ones are refused."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
import torch
from operator_cases import SHAPE

from diffsplit.errors import InputError
from diffsplit.operators import GaussianMatrix, ScaledIdentity, from_config
from diffsplit.operators.registry import _Budget, _build

GAUSSIAN = {"kind": "gaussian", "shape": [3, 8, 8], "rows": 40, "seed": 1, "dtype": "float16"}
RANDOMIZED = {"kind": "randomized", "shape": [3, 8, 8], "rows": 40, "seed": 1}
MASK = {"kind": "mask", "shape": [3, 8, 8], "fraction": 0.4, "seed": 1}
BOX = {"kind": "mask", "shape": [3, 8, 8], "box": [1, 2, 5, 3]}
BITS = {"kind": "mask", "shape": [3, 8, 8], "bits": "jnf3cBMDz5k=", "channels_apart": False}
DOWN = {"kind": "downsample", "shape": [3, 8, 12], "factor": 4, "kernel": "bicubic"}
STD = {"kind": "blur", "shape": [3, 8, 8], "size": 7, "std": 1.2, "boundary": "reflect"}
MOTION = {"kind": "blur", "shape": [3, 8, 8], "size": 7, "intensity": 0.5, "seed": 1}
KERNEL = {"kind": "blur", "shape": [3, 8, 8], "kernel_shape": [1, 2]} | {
    "kernel": base64.b64encode(np.array([0.75, 0.25], "<f4").tobytes()).decode()
}
MIX = {"kind": "channel_mix", "shape": [3, 8, 8], "matrix": [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]}
GRAY = {"kind": "grayscale", "shape": [3, 8, 8]}
IDENTITY = {"kind": "identity", "shape": [3, 8, 8]}
COMPOSED = {"kind": "composed", "outer": IDENTITY | {"shape": [78]}, "inner": MASK}
SCALED = {"kind": "scaled", "operator": RANDOMIZED, "factor": -2.5}
STACKED = {"kind": "stacked", "operators": [IDENTITY, BOX]}


@pytest.mark.parametrize(
    ("config", "fingerprint"),
    [
        (GAUSSIAN, [-0.313598, -1.0291, 1.19398]),
        (RANDOMIZED, [-1.59729, 1.46275, -0.429754]),
        (RANDOMIZED | {"transform": "dct"}, [-0.376391, -0.742494, -0.538582]),
        (MASK, [-0.273118, 0.522572, 0.358038]),
        (MASK | {"channels_apart": True}, [-0.5057, 0.369036, -0.390404]),
        (BOX, [-0.105354, 0.649841, 0.263223]),
        (BITS, [-0.0587065, -0.143717, 0.329366]),
        (DOWN, [-0.0483819, -0.172804, 0.0310122]),
        (STD, [-0.0482724, -0.218835, 0.251056]),
        (MOTION, [0.0451777, -0.00672848, -0.0716406]),
        (KERNEL, [0.331243, -0.725635, 0.0294596]),
        (MIX, [-0.798948, 0.513067, -0.228394]),
        (GRAY, [0.463319, -0.767079, 0.419583]),
        (IDENTITY, [-0.681516, -1.29354, 0.639229]),
        (COMPOSED, [-0.273118, 0.522572, 0.358038]),
        (SCALED, [3.99322, -3.65687, 1.07439]),
        (STACKED, [-0.593301, 0.42124, -0.370322]),
    ],
    ids=str,
)
def test_descriptions_mean_what_they_meant_in_version_0_1(config, fingerprint):
    assert from_config(config).fingerprint()[:3] == pytest.approx(fingerprint, abs=1e-4)


def _nested(depth: int) -> dict[str, object]:
    config: dict[str, object] = dict(MASK)
    for _ in range(depth):
        config = {"kind": "scaled", "operator": config, "factor": 1.0}
    return config


SHAPED = (GAUSSIAN, RANDOMIZED, MASK, BOX, BITS, DOWN, STD, MOTION, KERNEL, MIX, GRAY, IDENTITY)
DRAWN = (GAUSSIAN, RANDOMIZED, MASK, MOTION)


@pytest.mark.parametrize(
    "config",
    [
        None,
        "gaussian",
        {},
        {"kind": ["mask"]},
        {"kind": "unheard-of"},
        {"kind": "gaussian"},
        *(base | {"surprise": 1} for base in (*SHAPED, COMPOSED, SCALED, STACKED)),
        GAUSSIAN | {"device": "cuda"},
        BOX | {"fraction": 0.5},
        STD | {"seed": 0},
        *(base | {"shape": s} for base in SHAPED for s in
          ([], 8, "388", None, [3, 8, 0], [3, 8, 8.0], [True, 8, 8], [2**14, 2**13, 1],
           [10**400, 1, 1], {"0": 3})),
        *(base | {"shape": [8, 8]} for base in SHAPED[2:-1]),
        *(base | {"seed": s} for base in DRAWN for s in (-1, 2**32, 0.0, True, None, "0", [0])),
        *(base | {"rows": r} for base in (GAUSSIAN, RANDOMIZED) for r in
          (0, -1, 5.0, "5", None, True, 2**32)),
        *(GAUSSIAN | {"dtype": d} for d in ("int8", ["float32"])),
        RANDOMIZED | {"rows": 193},
        *(RANDOMIZED | {"transform": t} for t in ("fft", ["dct"])),
        *(MASK | {"fraction": f} for f in (0, -0.1, 1.0001, math.nan, "0.5", None, True, 1e-9)),
        MASK | {"channels_apart": 1},
        *(BOX | {"box": b} for b in
          ([0, 0, 8, 8], [8, 0, 1, 1], [-1, 0, 2, 2], [0, 0, 0, 1], [5, 5, 4, 1], [0, 0, 4],
           [0, 0, 4, 4.0], "0044", None)),
        *(BITS | {"bits": b} for b in
          ("", "jnf3cBMDz5k", "AAAAAAAAAAA=", "jnf3cBMDz5kA", "*nf3cBMDz5k=", "=nf3cBMDz5k=", 5)),
        BITS | {"channels_apart": "no"},
        *(DOWN | {"factor": f} for f in (0, 3, 2.0, "2", None, True)),
        *(DOWN | {"kernel": k} for k in ("nearest", None, ["bicubic"])),
        DOWN | {"shape": [1, 2**26, 1], "factor": 1},
        *(base | {"boundary": b} for base in (STD, MOTION, KERNEL) for b in ("zero", None, [1])),
        *(base | {"size": n} for base in (STD, MOTION) for n in (0, 9, 5.0, "5", None, True)),
        *(STD | {"std": s} for s in (0, -1, math.nan, math.inf, "1", None, True)),
        *(MOTION | {"intensity": i} for i in (-0.1, 1.5, math.nan, "0", None, True)),
        *(KERNEL | {"kernel_shape": s} for s in
          ([2], [2, 2], [1, 2, 1, 1], [9, 1], "12", None, [1, 2.0], [0, 2], [1, 10**400])),
        *(KERNEL | {"kernel": k} for k in
          ("", "AAAAAAAAAAA=", "AAAAfwAAAH8=", "****AAAAAAA=", "\u00e9AAAAAAAAAAA", 5)),
        *(MIX | {"matrix": m} for m in
          ([], [[]], [[1.0, 2.0]], [[0, 0, 0]], [["1", 0, 0]], [[math.inf, 0, 0]], "123", None,
           [[True, 1, 1]], [1, 2, 3], [[1.0, 0.0, 0.0]] * 257)),
        GRAY | {"shape": [1, 8, 8]},
        *(SCALED | {"factor": f} for f in (0, "1", None)),
        SCALED | {"operator": 5},
        COMPOSED | {"outer": MASK},
        *(STACKED | {"operators": o} for o in
          ([], MASK, [MASK] * 16, [MASK, IDENTITY | {"shape": [4]}])),
    ],
    ids=lambda config: str(config)[:110],
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
    _build(twice, device, _Budget(entries=2 * 40 * 192))
    with pytest.raises(InputError, match="too large"):
        _build(twice, device, _Budget(entries=2 * 40 * 192 - 1))


def test_a_gaussian_matrix_beyond_the_limits_is_refused_at_once(monkeypatch):
    with pytest.raises(InputError, match="RandomizedTransform"):
        GaussianMatrix((3, 256, 256), 2**15, 0)
    monkeypatch.setattr("diffsplit.operators.dense.memory_of", lambda device: 1e5)
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
