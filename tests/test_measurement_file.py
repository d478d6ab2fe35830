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
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

import diffsplit as ds
from diffsplit.io import measurements as measurement_file
from diffsplit.errors import InputError
from diffsplit.io.packing import pack, packed_size, unpack

SHAPE = (3, 8, 8)

OPERATORS: dict[str, Callable[[], ds.operators.LinearOperator]] = {
    "gaussian": lambda: ds.operators.GaussianMatrix(SHAPE, rows=21, seed=3),
    "half": lambda: ds.operators.GaussianMatrix(SHAPE, rows=21, seed=3, dtype=torch.float16),
    "hadamard": lambda: ds.operators.RandomizedTransform(SHAPE, rows=21, seed=3),
    "dct": lambda: ds.operators.RandomizedTransform(SHAPE, rows=21, seed=3, transform="dct"),
    "pixels": lambda: ds.operators.PixelMask(SHAPE, fraction=0.3, seed=3),
    "box": lambda: ds.operators.PixelMask.box(SHAPE, 2, 2, 3, 3),
    "drawn mask": lambda: ds.operators.PixelMask.from_mask(torch.eye(8, dtype=torch.bool), SHAPE),
    "scaled stack": lambda: 0.5 * ds.operators.Stacked(OPERATORS["dct"](), OPERATORS["pixels"]()),
}
CHANNELS: dict[str, Callable[[], Any]] = {
    "gaussian": lambda: ds.channels.GaussianNoise(0.1),
    "one bit": lambda: ds.channels.OneBit(sigma=0.5),
    "flipped": lambda: ds.channels.OneBit(sigma=0.5, threshold=0.2, flip=0.05),
    "logistic": lambda: ds.channels.Logistic(),
    "one-bit codes": lambda: ds.channels.Quantized(bits=1, sigma=0.1, limit=2.0),
    "three bits": lambda: ds.channels.Quantized(bits=3, sigma=0.1, limit=2.0),
    "edges": lambda: ds.channels.Quantized(edges=[-1.0, -0.5, 0.0, 0.7], sigma=0.0),
}


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def written(
    folder: Path, operator: str = "hadamard", channel: str = "one bit", batch: int = 2
) -> tuple[Path, ds.Problem, torch.Tensor]:
    problem = ds.Problem(OPERATORS[operator](), CHANNELS[channel]())
    y = problem.measure(images(batch), generator=torch.Generator().manual_seed(1))
    path = folder / "y.safetensors"
    measurement_file.save(path, problem, y, {"note": "a test"})
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


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_measurements_and_problem_come_back_as_they_were(
    tmp_path: Path, operator: str, channel: str
) -> None:
    path, problem, y = written(tmp_path, operator, channel)
    back = measurement_file.load(path)
    assert back.y.shape == y.shape
    assert torch.equal(back.y.double(), y.double())
    assert back.y.dtype == y.dtype
    assert back.facts == {"note": "a test"}
    assert back.problem.operator.config() == problem.operator.config()
    assert back.problem.channel.config() == problem.channel.config()
    torch.testing.assert_close(back.problem.nll(images(), back.y), problem.nll(images(), y))


def test_768_one_bit_measurements_take_96_bytes_in_a_small_file(tmp_path: Path) -> None:
    operator = ds.operators.GaussianMatrix((3, 64, 64), rows=768, seed=0)
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.5))
    y = problem.measure(torch.zeros(1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    measurement_file.save(tmp_path / "y", problem, y)
    facts = measurement_file.read_facts(tmp_path / "y")
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


def test_bits_are_stored_most_significant_first() -> None:
    assert pack(np.array([1, 0, 0, 0, 0, 0, 0, 0, 1]), 1).tolist() == [128, 128]
    assert pack(np.array([0b101, 0b011, 0b11]), 3).tolist() == [0b10101101, 0b10000000]


def test_codes_that_do_not_fit_are_not_packed() -> None:
    for codes, bits in (([4], 2), ([-1], 2), ([0], 0), ([0], 17)):
        with pytest.raises(InputError):
            pack(np.array(codes), bits)
    with pytest.raises(InputError):
        unpack(np.zeros(3, np.uint8), 1, 16)


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 10):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"y\.safetensors"):
            measurement_file.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError):
        measurement_file.load(path)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"y\.safetensors"):
            measurement_file.read_facts(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 40_000) + b"[" * 40_000,
        safetensors.numpy.save({"y": np.zeros(3, np.uint8)}),
        safetensors.numpy.save({"z": np.zeros(3, np.uint8)}, {"diffsplit": "{}"}),
        safetensors.numpy.save({"y": np.zeros(3, np.uint8)}, {"diffsplit": "{}"}),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "y").write_bytes(content)
    with pytest.raises(InputError):
        measurement_file.load(tmp_path / "y")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="no such measurement file"):
            measurement_file.load(path)


def test_oversized_files_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "y").open("wb") as file:
        file.truncate(measurement_file.MAX_BYTES + 1)
    with pytest.raises(InputError, match="at most"):
        measurement_file.load(tmp_path / "y")


HUGE = 10**12
HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "version": lambda h: h.update(version=2),
    "version of a strange kind": lambda h: h.update(version={"a": [1]}),
    "format": lambda h: h.update(format="other"),
    "no shape": lambda h: h.pop("shape"),
    "empty shape": lambda h: h.update(shape=[]),
    "huge shape": lambda h: h.update(shape=[HUGE, HUGE]),
    "negative shape": lambda h: h.update(shape=[-2, 21]),
    "fractional shape": lambda h: h.update(shape=[2.0, 21.0]),
    "shape of another length": lambda h: h.update(shape=[2, 20]),
    "shape folded": lambda h: h.update(shape=[2, 3, 7]),
    "shape of words": lambda h: h.update(shape="2,21"),
    "bits": lambda h: h.update(bits=7),
    "huge bits": lambda h: h.update(bits=HUGE),
    "values": lambda h: h.update(values="pickle"),
    "real values": lambda h: h.update(values="float32"),
    "image shape": lambda h: h.update(image_shape=[3, 64, 64]),
    "huge image": lambda h: (
        h.update(image_shape=[3, 16384, 4096]),
        h["operator"].update(shape=[3, 16384, 4096]),
    ),
    "operator of another seed": lambda h: h["operator"].update(seed=4),
    "operator of a strange kind": lambda h: h["operator"].update(kind=["gaussian"]),
    "operator of no kind": lambda h: h["operator"].pop("kind"),
    "operator with huge rows": lambda h: h["operator"].update(rows=HUGE),
    "dense operator": lambda h: h["operator"].update(kind="gaussian", transform=None),
    "operator is a list": lambda h: h.update(operator=[]),
    "channel unknown": lambda h: h.update(channel={"kind": "eval"}),
    "channel empty": lambda h: h.update(channel={}),
    "channel of real numbers": lambda h: h.update(channel=ds.channels.GaussianNoise(0.1).config()),
    "channel of many bits": lambda h: h.update(
        channel={**ds.channels.Quantized(bits=2, sigma=0.1, limit=1.0).config(), "bits": 64}
    ),
    "channel of strange noise": lambda h: h["channel"].update(sigma="loud"),
    "channel of negative noise": lambda h: h["channel"].update(sigma=-1.0),
    "fingerprint": lambda h: h["fingerprint"].__setitem__(2, h["fingerprint"][2] + 0.1),
    "short fingerprint": lambda h: h["fingerprint"].pop(),
    "fingerprint of words": lambda h: h.update(fingerprint=["a"] * 8),
    "facts": lambda h: h.update(facts=3),
    "not JSON": lambda h: "{",
    "no object": lambda h: "{}",
    "NaN": lambda h: json.dumps({**h, "fingerprint": [math.nan] * 8}),
    "NaN among the facts": lambda h: json.dumps({**h, "facts": {"a": math.nan}}),
    "deep": lambda h: '{"a":' + "[" * 100_000,
    "deep facts": lambda h: h.update(facts={"a": deep_list(80)}),
    "endless fingerprint": lambda h: h["fingerprint"].__setitem__(2, 10**400),
    "long number": lambda h: '{"a":' + "1" * 100_000,
    "deep operator": lambda h: h.update(operator=nested(500)),
}


def deep_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def nested(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = OPERATORS["hadamard"]().config()
    for _ in range(depth):
        config = {"kind": "scaled", "factor": 1.0, "operator": config}
    return config


@pytest.mark.parametrize("case", HOSTILE)
def test_a_forged_description_with_a_right_checksum_is_refused(tmp_path: Path, case: str) -> None:
    path, _, _ = written(tmp_path)
    with pytest.raises(InputError, match=r"y\.safetensors: ") as caught:
        measurement_file.load(forged(path, HOSTILE[case]))
    assert len(str(caught.value)) < 600


def test_another_operator_on_this_machine_is_named_as_the_reason(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, "gaussian")
    with pytest.raises(InputError, match="this machine builds another operator"):
        measurement_file.load(forged(path, lambda h: h["operator"].update(seed=4)))


def test_rounding_of_another_machine_is_no_other_operator(tmp_path: Path) -> None:
    path, _, y = written(tmp_path, "gaussian")

    def shift(header: dict[str, Any]) -> None:
        largest = max(map(abs, header["fingerprint"]))
        header["fingerprint"] = [v + 5e-4 * largest for v in header["fingerprint"]]

    assert torch.equal(measurement_file.load(forged(path, shift)).y, y)


def test_an_operator_of_tiny_numbers_is_told_from_another(tmp_path: Path) -> None:
    for seed in (3, 4):
        operator = 1e-6 * ds.operators.RandomizedTransform(SHAPE, rows=21, seed=seed)
        problem = ds.Problem(operator, ds.channels.GaussianNoise(1e-6))
        y = problem.measure(images(), generator=torch.Generator().manual_seed(1))
        path = tmp_path / f"{seed}"
        measurement_file.save(path, problem, y)
        assert torch.equal(measurement_file.load(path).y, y)

    def reseed(header: dict[str, Any]) -> None:
        header["operator"]["operator"]["seed"] = 3

    with pytest.raises(InputError, match="this machine builds another operator"):
        measurement_file.load(forged(path, reseed))


@pytest.mark.parametrize(
    "facts",
    [
        {"a": math.nan},
        {"a": {1, 2}},
        {"a": deep_list(80)},
        {"a": deep_list(5000)},
        ["a"],
        {"a": "x" * measurement_file.MAX_METADATA},
    ],
    ids=["NaN", "set", "deep", "very deep", "list", "long"],
)
def test_facts_that_could_not_be_read_are_not_written(tmp_path: Path, facts: Any) -> None:
    _, problem, y = written(tmp_path)
    with pytest.raises(InputError, match=r"facts"):
        measurement_file.save(tmp_path / "new", problem, y, facts)
    assert not (tmp_path / "new").exists()


def test_an_operator_that_overflows_is_not_written(tmp_path: Path) -> None:
    operator = 1e17 * (1e17 * (1e17 * ds.operators.Identity(SHAPE)))
    problem = ds.Problem(operator, ds.channels.GaussianNoise(0.1))
    with pytest.raises(InputError, match="no finite measurements"):
        measurement_file.save(tmp_path / "new", problem, images())


def test_measurements_that_keep_the_layout_of_a_picture_are_written_in_order(
    tmp_path: Path,
) -> None:
    problem = ds.Problem(ds.operators.Identity(SHAPE), ds.channels.GaussianNoise(0.0))
    x = images().to(memory_format=torch.channels_last)
    y = problem.measure(x, generator=torch.Generator())
    measurement_file.save(tmp_path / "y", problem, y)
    assert torch.equal(measurement_file.load(tmp_path / "y").y, x)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_measurements_that_are_not_finite_are_neither_read_nor_written(
    tmp_path: Path, bad: float
) -> None:
    path, problem, y = written(tmp_path, channel="gaussian")
    values = y.float().numpy().copy()
    values[1, 3] = bad
    with pytest.raises(InputError, match="NaN"):
        measurement_file.load(forged(path, lambda h: None, y=values))
    with pytest.raises(InputError, match="NaN"):
        measurement_file.save(tmp_path / "new", problem, torch.from_numpy(values))
    assert not (tmp_path / "new").exists()


def test_codes_that_the_channel_cannot_make_are_neither_read_nor_written(tmp_path: Path) -> None:
    path, problem, y = written(tmp_path, channel="edges")  # five outcomes in three bits
    payload = np.full(packed_size(y.numel(), 3), 0xFF, np.uint8)
    with pytest.raises(InputError, match="cannot make"):
        measurement_file.load(forged(path, lambda h: None, y=payload))
    for wrong in (y + 10, y - 10, y + 0.5):
        with pytest.raises(InputError):
            measurement_file.save(tmp_path / "new", problem, wrong)
    assert not (tmp_path / "new").exists()


def test_signs_are_no_codes_of_a_quantizer(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, channel="one-bit codes")
    with pytest.raises(InputError, match=r"y\.safetensors: "):
        measurement_file.load(forged(path, lambda h: h.update(values="signs")))


def test_an_operator_from_a_function_cannot_be_written(tmp_path: Path) -> None:
    operator = ds.operators.from_matrix(torch.eye(4), (1, 2, 2))
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.5))
    y = torch.ones(1, *operator.shape_out)
    with pytest.raises(InputError, match="cannot be written"):
        measurement_file.save(tmp_path / "y", problem, y)
    assert not list(tmp_path.iterdir())


def test_equal_measurements_make_equal_files(tmp_path: Path) -> None:
    contents = {written(tmp_path)[0].read_bytes() for _ in range(8)}
    assert len(contents) == 1


def test_facts_are_read_without_building_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, problem, y = written(tmp_path)
    monkeypatch.delattr(ds.operators, "from_config")
    facts = measurement_file.read_facts(path)
    assert facts["shape"] == list(y.shape)
    assert facts["operator"] == problem.operator.config()
    assert facts["facts"] == {"note": "a test"}
