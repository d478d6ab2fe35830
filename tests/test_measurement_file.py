from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

import diffsplit as ds
from diffsplit.errors import InputError
from diffsplit.io import description, measurements
from diffsplit.io.packing import pack, packed_size, unpack

SHAPE = (3, 8, 8)
OLD = Path(__file__).parent / "fixtures" / "measurements"
EXPECTED = safetensors.torch.load_file(OLD / "expected.safetensors")


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def hadamard(seed: int = 3) -> ds.operators.LinearOperator:
    return ds.operators.RandomizedTransform(SHAPE, rows=21, seed=seed)


def written(
    folder: Path, operator: Any = None, channel: Any = None
) -> tuple[Path, ds.Problem, torch.Tensor]:
    problem = ds.Problem(operator or hadamard(), channel or ds.channels.OneBit(sigma=0.5))
    y = problem.measure(images(), generator=torch.Generator().manual_seed(1))
    path = folder / "y.safetensors"
    measurements.save(path, problem, y, {"note": "a test"})
    return path, problem, y


def forged(path: Path, change: Callable[[dict[str, Any]], object], **payload: Any) -> Path:
    """The file with its description changed and its checksum made right again."""
    with safe_open(path, framework="numpy") as file:
        header, y = json.loads(file.metadata()["diffsplit"]), file.get_tensor("y")
    del header["sha256"]
    new = change(header)
    y = payload.get("y", y)
    text = new if isinstance(new, str) else json.dumps(header)
    digest = hashlib.sha256(text.encode() + y.tobytes()).hexdigest()
    sealed = f'{{"sha256":"{digest}",{text[1:]}'
    path.write_bytes(safetensors.numpy.save({"y": y}, {"diffsplit": sealed}))
    return path


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in EXPECTED}))
def test_files_of_the_first_version_mean_what_they_meant(name: str, tmp_path: Path) -> None:
    measured = measurements.load(OLD / f"{name}.safetensors")
    problem, y = measured.problem, measured.y
    shape = problem.operator.shape_in
    probe = (torch.arange(math.prod(shape)) * 37 % 101 / 50 - 1).reshape(1, *shape)
    s, nll = EXPECTED[f"{name}/s"][None], EXPECTED[f"{name}/nll"]
    assert torch.equal(y.double(), EXPECTED[f"{name}/y"].double())
    torch.testing.assert_close(problem.operator.apply(probe), s, atol=2e-5, rtol=0)
    torch.testing.assert_close(problem.channel.nll(s, y).flatten(1).sum(1), nll, rtol=1e-4, atol=0)
    assert measured.facts == {"case": name}
    assert measurements.read_facts(OLD / f"{name}.safetensors")["image_shape"] == list(shape)
    measurements.save(tmp_path / "again", problem, y, measured.facts)
    again = measurements.load(tmp_path / "again")
    assert torch.equal(again.y, y)
    assert again.problem.operator.config() == problem.operator.config()
    assert again.problem.channel.config() == problem.channel.config()


def test_768_one_bit_measurements_take_96_bytes_in_a_small_file(tmp_path: Path) -> None:
    operator = ds.operators.GaussianMatrix((3, 64, 64), rows=768, seed=0)
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.5))
    y = problem.measure(torch.zeros(1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    measurements.save(tmp_path / "y", problem, y)
    facts = measurements.read_facts(tmp_path / "y")
    assert facts["payload_bytes"] == 96
    assert facts["file_bytes"] == (tmp_path / "y").stat().st_size < 2500


@given(
    st.integers(1, 16).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1))))
)
def test_codes_of_every_width_are_packed_without_loss_or_waste(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    payload = pack(np.array(codes, dtype=np.int64), bits)
    assert payload.nbytes == packed_size(len(codes), bits) == math.ceil(len(codes) * bits / 8)
    assert unpack(payload, bits, len(codes)).tolist() == codes


def test_bits_are_stored_most_significant_first_and_codes_that_do_not_fit_are_refused() -> None:
    assert pack(np.array([1, 0, 0, 0, 0, 0, 0, 0, 1]), 1).tolist() == [128, 128]
    assert pack(np.array([0b101, 0b011, 0b11]), 3).tolist() == [0b10101101, 0b10000000]
    for codes, bits in (([4], 2), ([-1], 2), ([0], 0), ([0], 17)):
        with pytest.raises(InputError):
            pack(np.array(codes), bits)


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 10):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"y\.safetensors"):
            measurements.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError):
        measurements.load(path)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"y\.safetensors"):
            measurements.read_facts(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 40_000) + b"[" * 40_000,
        safetensors.numpy.save({"y": np.zeros(3, np.uint8)}),
        safetensors.numpy.save({"y": np.zeros(3, np.uint8)}, {"diffsplit": "{}"}),
    ],
    ids=["empty", "noise", "huge header", "deep header", "no description", "empty description"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "y").write_bytes(content)
    with pytest.raises(InputError):
        measurements.load(tmp_path / "y")


def test_missing_files_folders_and_oversized_files_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(measurements.MAX_BYTES + 1)
    for path in (tmp_path, tmp_path / "none", tmp_path / "large", 3):
        with pytest.raises(InputError):
            measurements.load(path)  # type: ignore[arg-type]


def deep_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def nested(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = hadamard().config()
    for _ in range(depth):
        config = {"kind": "scaled", "factor": 1.0, "operator": config}
    return config


HUGE = 10**12
HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "version": lambda h: h.update(version={"a": [1]}),
    "format": lambda h: h.update(format="other"),
    "no shape": lambda h: h.pop("shape"),
    "huge shape": lambda h: h.update(shape=[HUGE, HUGE]),
    "negative shape": lambda h: h.update(shape=[-2, 21]),
    "shape of another length": lambda h: h.update(shape=[2, 20]),
    "shape folded": lambda h: h.update(shape=[2, 3, 7]),
    "huge bits": lambda h: h.update(bits=HUGE),
    "real values": lambda h: h.update(values="float32"),
    "image shape": lambda h: h.update(image_shape=[3, 64, 64]),
    "huge image": lambda h: (
        h.update(image_shape=[3, 16384, 4096]),
        h["operator"].update(shape=[3, 16384, 4096]),
    ),
    "operator of another seed": lambda h: h["operator"].update(seed=4),
    "operator of a strange kind": lambda h: h["operator"].update(kind=["gaussian"]),
    "operator with huge rows": lambda h: h["operator"].update(rows=HUGE),
    "dense operator": lambda h: h["operator"].update(kind="gaussian", transform=None),
    "operator is a list": lambda h: h.update(operator=[]),
    "channel unknown": lambda h: h.update(channel={"kind": "eval"}),
    "channel of real numbers": lambda h: h.update(channel=ds.channels.GaussianNoise(0.1).config()),
    "channel of many bits": lambda h: h.update(
        channel={**ds.channels.Quantized(bits=2, sigma=0.1, limit=1.0).config(), "bits": 64}
    ),
    "channel of negative noise": lambda h: h["channel"].update(sigma=-1.0),
    "fingerprint": lambda h: h["fingerprint"].__setitem__(2, h["fingerprint"][2] + 0.1),
    "endless fingerprint": lambda h: h["fingerprint"].__setitem__(2, 10**400),
    "short fingerprint": lambda h: h["fingerprint"].pop(),
    "facts": lambda h: h.update(facts=3),
    "not JSON": lambda h: "{",
    "NaN": lambda h: json.dumps({**h, "facts": {"a": math.nan}}),
    "deep": lambda h: '{"a":' + "[" * 100_000,
    "deep facts": lambda h: h.update(facts={"a": deep_list(80)}),
    "long number": lambda h: '{"a":' + "1" * 100_000,
    "deep operator": lambda h: h.update(operator=nested(50)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_forged_description_with_a_right_checksum_is_refused(tmp_path: Path, case: str) -> None:
    path, _, _ = written(tmp_path)
    with pytest.raises(InputError, match=r"y\.safetensors: ") as caught:
        measurements.load(forged(path, HOSTILE[case]))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("scale", [2.0, 1e-6])
def test_another_operator_is_told_from_the_rounding_of_another_machine(
    tmp_path: Path, scale: float
) -> None:
    path, _, y = written(tmp_path, scale * hadamard(), ds.channels.GaussianNoise(scale))

    def shift(header: dict[str, Any]) -> None:
        largest = max(map(abs, header["fingerprint"]))
        header["fingerprint"] = [v + 5e-4 * largest for v in header["fingerprint"]]

    assert torch.equal(measurements.load(forged(path, shift)).y, y)
    with pytest.raises(InputError, match="this machine builds another operator"):
        measurements.load(forged(path, lambda h: h["operator"]["operator"].update(seed=4)))


@pytest.mark.parametrize(
    "facts",
    [
        {"a": math.nan},
        {"a": {1, 2}},
        {"a": deep_list(80)},
        {"a": deep_list(5000)},
        ["a"],
        {"a": "x" * description.MAX_TEXT},
    ],
    ids=["NaN", "set", "deep", "very deep", "list", "long"],
)
def test_facts_that_could_not_be_read_are_not_written(tmp_path: Path, facts: Any) -> None:
    _, problem, y = written(tmp_path)
    with pytest.raises(InputError, match=r"facts"):
        measurements.save(tmp_path / "new", problem, y, facts)
    assert not (tmp_path / "new").exists()


def test_operators_that_overflow_or_come_from_a_function_are_not_written(tmp_path: Path) -> None:
    overflowing = 1e17 * (1e17 * (1e17 * ds.operators.Identity(SHAPE)))
    unnamed = ds.operators.from_matrix(torch.eye(192), SHAPE)
    for operator, reason in ((overflowing, "no finite"), (unnamed, "cannot be written")):
        problem = ds.Problem(operator, ds.channels.GaussianNoise(0.1))
        with pytest.raises(InputError, match=reason):
            measurements.save(tmp_path / "y", problem, torch.ones(1, *operator.shape_out))
    assert not list(tmp_path.iterdir())


def test_measurements_that_keep_the_layout_of_a_picture_are_written_in_order(
    tmp_path: Path,
) -> None:
    problem = ds.Problem(ds.operators.Identity(SHAPE), ds.channels.GaussianNoise(0.1))
    y = images().to(memory_format=torch.channels_last)
    measurements.save(tmp_path / "y", problem, y)
    assert torch.equal(measurements.load(tmp_path / "y").y, y)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_measurements_that_are_not_finite_are_neither_read_nor_written(
    tmp_path: Path, bad: float
) -> None:
    path, problem, y = written(tmp_path, channel=ds.channels.GaussianNoise(0.1))
    values = y.numpy().copy()
    values[1, 3] = bad
    with pytest.raises(InputError, match="NaN"):
        measurements.load(forged(path, lambda h: None, y=values))
    with pytest.raises(InputError, match="NaN"):
        measurements.save(tmp_path / "new", problem, torch.from_numpy(values))
    assert not (tmp_path / "new").exists()


def test_codes_that_the_channel_cannot_make_are_neither_read_nor_written(tmp_path: Path) -> None:
    edges = ds.channels.Quantized(edges=[-1.0, -0.5, 0.0, 0.7], sigma=0.1)
    path, problem, y = written(tmp_path, channel=edges)  # five outcomes in three bits
    payload = np.full(packed_size(y.numel(), 3), 0xFF, np.uint8)
    with pytest.raises(InputError, match="cannot make"):
        measurements.load(forged(path, lambda h: None, y=payload))
    for wrong in (y + 10, y - 10, y + 0.5):
        with pytest.raises(InputError):
            measurements.save(tmp_path / "new", problem, wrong)
    two = ds.channels.Quantized(bits=1, sigma=0.1, limit=2.0)
    with pytest.raises(InputError, match=r"y\.safetensors: "):
        measurements.load(
            forged(written(tmp_path, channel=two)[0], lambda h: h.update(values="signs"))
        )


def test_equal_measurements_make_equal_files(tmp_path: Path) -> None:
    assert len({written(tmp_path)[0].read_bytes() for _ in range(8)}) == 1


def test_facts_and_the_size_of_the_images_are_read_without_building_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, problem, y = written(tmp_path)
    monkeypatch.delattr(ds.operators, "from_config")
    facts = measurements.read_facts(path)
    assert facts["shape"] == list(y.shape)
    assert facts["image_shape"] == list(SHAPE)
    assert facts["operator"] == problem.operator.config()
    assert facts["facts"] == {"note": "a test"}
