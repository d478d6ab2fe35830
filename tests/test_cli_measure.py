"""`diffsplit measure`: every task gives a file that loads, and what makes no sense is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import SIZE, refused, run, spelled, with_reasons
from PIL import Image

from diffsplit.io import measurements as measurement_file
from diffsplit.cli.restoration import Restoration, restoration_operator

RESTORATIONS = tuple(task.value for task in Restoration)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--rows", 50, "--operator", "hadamard", "--sigma", 0),
        ("--ratio", "1/8", "--operator", "dct"),
        ("--task", "logistic"),
        ("--task", "onebit-inpainting", "--fraction", 0.25),
        ("--task", "onebit-cs", "--operator", "mask"),
        ("--task", "quantized"),
        ("--task", "quantized", "--bits", 3, "--sigma", 0.1, "--operator", "mask"),
        *(("--task", task) for task in RESTORATIONS),
        ("--task", "inpaint-random", "--fraction", 0.2, "--sigma", 0.1),
    ],
    ids=spelled,
)
def test_every_task_writes_a_file_that_loads(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...]
) -> None:
    path = tmp_path / "y.safetensors"
    assert run("measure", cat, "-o", path, "--size", SIZE, *options) == 0
    back = measurement_file.load(path)
    assert back.problem.operator.shape_in == (3, SIZE, SIZE)
    out = capsys.readouterr().out
    assert f"{back.y.numel():,} measurements" in out
    assert "bytes" in out
    assert run("info", path) == 0
    assert " × ".join(map(str, back.y.shape[1:])) in capsys.readouterr().out


def test_rows_and_ratio_set_the_number_of_measurements(tmp_path: Path, cat: Path) -> None:
    path = tmp_path / "y.safetensors"
    total = 3 * SIZE**2
    for options, rows in ((("--rows", 5), 5), (("--ratio", "1/3"), total // 3), ((), total // 16)):
        assert run("measure", cat, "-o", path, "--size", SIZE, "--force", *options) == 0
        assert measurement_file.read_facts(path)["shape"] == [1, rows]


def test_the_same_seed_gives_the_same_file_and_another_seed_another(
    tmp_path: Path, cat: Path
) -> None:
    contents = []
    for seed in (8, 7, 7, 7):
        assert run("measure", cat, "-o", tmp_path / "y", "--force", "--seed", seed) == 0
        contents.append((tmp_path / "y").read_bytes())
    assert contents[1] == contents[2] == contents[3] != contents[0]


def test_the_quantizer_is_scaled_so_that_the_codes_are_used(tmp_path: Path, cat: Path) -> None:
    path = tmp_path / "y"
    options = ("--task", "quantized", "--bits", 2, "--ratio", "1")
    assert run("measure", cat, "-o", path, "--size", SIZE, *options) == 0
    share = torch.bincount(measurement_file.load(path).y.long().flatten(), minlength=4) / 768
    assert share.min() > 0.02


@with_reasons(
    (("--rows", 5, "--ratio", 0.1), "--rows and --ratio"),
    (("--ratio", "0"), "positive"),
    (("--ratio", "1/0"), "positive"),
    (("--ratio", "many"), "positive"),
    (("--rows", 0), "--rows"),
    (("--rows", 10**8), "Gaussian matrix"),
    (("--rows", 10**6, "--operator", "hadamard"), "rows"),
    (("--sigma", -1), "--sigma"),
    (("--sigma", "nan"), "sigma"),
    (("--sigma", "inf"), "sigma"),
    (("--bits", 4), "--bits"),
    (("--fraction", 0.5), "--fraction"),
    (("--operator", "mask", "--rows", 3), "mask"),
    (("--operator", "mask", "--fraction", 0), "fraction"),
    (("--task", "logistic", "--sigma", 0.5), "--sigma"),
    (("--task", "onebit-inpainting", "--operator", "dct"), "--operator"),
    (("--task", "quantized", "--bits", 17), "--bits"),
    (("--task", "unknown"), "--task"),
    (("--task", "denoise", "--rows", 3), "--rows"),
    (("--task", "motion-deblur", "--operator", "dct"), "--operator"),
    (("--task", "inpaint-box", "--fraction", 0.5), "--fraction"),
    (("--task", "super-resolution", "--size", 18), "18"),
    (("--seed", -1), "--seed"),
    (("--size", 0), "--size"),
    (("--nonsense",), "--nonsense"),
)
def test_options_that_make_no_sense_are_refused_with_their_reason(
    tmp_path: Path,
    cat: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    error = refused(
        capsys, tmp_path, "measure", cat, "-o", tmp_path / "y", "--size", SIZE, *options
    )
    assert reason in error


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_images_that_cannot_be_read_end_with_one_line_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    error = refused(capsys, tmp_path, "measure", tmp_path / "bad.png", "-o", tmp_path / "y")
    assert "bad.png" in error


def test_a_huge_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    error = refused(capsys, tmp_path, "measure", tmp_path / "huge.png", "-o", tmp_path / "y")
    assert "pixels" in error


def test_restoration_tasks_at_256_are_those_of_the_paper() -> None:
    def config(task: str, side: int) -> dict[str, Any]:
        return restoration_operator(Restoration(task), (3, side, side), 0.5, 1).config()

    assert config("inpaint-box", 256)["box"] == [78, 78, 100, 100]
    assert config("super-resolution", 256)["factor"] == 4
    blur, small = config("gaussian-deblur", 256), config("gaussian-deblur", 64)
    assert (blur["size"], blur["std"]) == (61, 3.0)
    assert (small["size"], small["std"]) == (15, 0.75)
    assert config("motion-deblur", 256)["size"] == 61
    shake = config("motion-deblur", 64)
    assert (shake["size"], shake["intensity"], shake["seed"]) == (15, 0.5, 1)
