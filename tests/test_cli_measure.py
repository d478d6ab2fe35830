"""`diffsplit measure` and `info`: files that load, what they say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import SIZE, refused, run, spelled, with_reasons
from PIL import Image

from diffsplit import Problem
from diffsplit.channels import OneBit
from diffsplit.io import measurements as measurement_file
from diffsplit.operators import Identity
from diffsplit.tasks import TASKS


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--rows", 50, "--operator", "hadamard", "--sigma", 0),
        ("--ratio", "1/8", "--operator", "dct"),
        ("--operator", "mask", "--fraction", 0.25),
        ("--gray",),
        ("--task", "quantized", "--bits", 3, "--sigma", 0.1),
        *(("--task", task) for task in TASKS),
    ],
    ids=spelled,
)
def test_every_task_writes_a_file_that_loads_and_says_what_it_holds(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...]
) -> None:
    path = tmp_path / "y.safetensors"
    assert run("measure", cat, "-o", path, "--size", SIZE, *options) == 0
    back = measurement_file.load(path)
    assert back.problem.operator.shape_in == (1 if "--gray" in options else 3, SIZE, SIZE)
    assert f"{back.y.numel():,} measurements" in capsys.readouterr().out
    assert run("info", path) == 0
    assert " × ".join(map(str, back.y.shape[1:])) in capsys.readouterr().out


def test_the_same_seed_gives_the_same_file_and_another_seed_another(
    tmp_path: Path, cat: Path
) -> None:
    contents = []
    for seed in (8, 7, 7):
        assert run("measure", cat, "-o", tmp_path / "y", "--force", "--seed", seed) == 0
        contents.append((tmp_path / "y").read_bytes())
    assert contents[1] == contents[2] != contents[0]


@with_reasons(
    (("--rows", 5, "--ratio", 0.1), "rows and ratio"),
    (("--ratio", "1/0"), "positive"),
    (("--ratio", "many"), "positive"),
    (("--rows", 0), "--rows"),
    (("--rows", 10**8), "Gaussian matrix"),
    (("--sigma", "nan"), "sigma"),
    (("--operator", "mask", "--fraction", 0), "fraction"),
    (("--operator", "wavelet"), "'wavelet' is not one of 'gaussian'"),
    (("--task", "quantized", "--bits", 17), "--bits"),
    (("--task", "motion-deblur", "--operator", "dct"), "has no operator"),
    (("--task", "super-resolution", "--size", 18), "18"),
    (("--seed", -1), "--seed"),
    (("--nonsense",), "--nonsense"),
)
def test_options_that_make_no_sense_are_refused_with_their_reason(
    tmp_path: Path,
    cat: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    measure = ("measure", cat, "-o", tmp_path / "y", "--size", SIZE)
    assert reason in refused(capsys, tmp_path, *measure, *options)


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
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


def test_facts_cannot_pass_for_what_the_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(Identity((1, 2, 2)), OneBit(0.5))
    facts = {"kind": "a poem", "images": 1000, "deep": [[{"a": [1]}]]}
    measurement_file.save(tmp_path / "y", problem, torch.ones(3, 1, 2, 2), facts)
    assert run("info", tmp_path / "y") == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.strip().split("  ")[0]: line for line in lines}
    assert "measurements, format version 1" in shown["kind"]
    assert shown["images"].split()[-1] == "3"
    assert "a poem" in shown["added by its writer"]


def test_info_describes_a_prior_and_refuses_other_files(
    tmp_path: Path, cat: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", prior) == 0
    assert "EDMPrior" in capsys.readouterr().out
    assert "not a measurement file" in refused(capsys, tmp_path, "info", cat)
    assert "no such prior" in refused(capsys, tmp_path, "info", "nobody")
