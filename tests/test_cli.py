from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffsplit import Problem, cli, measurement_file
from diffsplit.channels import OneBit
from diffsplit.cli.restoration import Restoration, restoration_operator
from diffsplit.errors import DivergenceError
from diffsplit.images import load_image
from diffsplit.operators import Identity
from diffsplit.priors import EDMPrior
from diffsplit.priors.edm import build_unet
from diffsplit.solvers import DiffOneBit

SIZE = 16
RESTORATIONS = tuple(task.value for task in Restoration)
COMMANDS = ("demo", "measure", "recover", "info", "train")


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny prior with random weights: good for nothing but quick."""
    folder = tmp_path_factory.mktemp("prior")
    EDMPrior(build_unet(SIZE, 2, (16, 32)).eval(), sigma_data=0.5).save(folder)
    return str(folder)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def measured(tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "cat.safetensors"
    assert run("measure", cat, "-o", path, "--size", SIZE) == 0
    capsys.readouterr()
    return path


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object, code: int = 2
) -> str:
    """Run a command that must fail with one line on stderr and leave the folder as it was."""
    before = files(folder)
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("Error: ")
    assert files(folder) == before
    return captured.err


@pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS)])
def test_help_of_every_command_explains_and_shows_examples(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert "Examples" in out
    assert f"diffsplit {' '.join(command)}".rstrip() in out


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("diffsplit 0.")


def test_the_module_runs_and_importing_it_loads_no_heavy_library() -> None:
    code = (
        "import sys, diffsplit.cli; "
        "sys.exit(any(m in sys.modules for m in ('diffusers', 'torchmetrics', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "diffsplit", "--nonsense"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


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
    ids=lambda options: " ".join(map(str, options)) or "defaults",
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
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
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
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


@pytest.mark.parametrize("task", [*RESTORATIONS, "onebit-cs"])
def test_dcdp_recovers_every_restoration_task_and_bits(
    tmp_path: Path, cat: Path, prior: str, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    path = tmp_path / "y"
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", task) == 0
    options = ("--solver", "dcdp", "--prior", prior, "--steps", 2)
    assert run("recover", path, "-o", tmp_path / "x.png", *options) == 0
    assert load_image(tmp_path / "x.png").shape == (1, 3, SIZE, SIZE)


def test_the_options_of_diff_onebit_reach_it_with_the_defaults_of_the_paper(
    tmp_path: Path, cat: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    check = DiffOneBit.check
    monkeypatch.setattr(DiffOneBit, "check", lambda *a: (seen.append(a[0]), check(*a))[1])
    recover = ("--solver", "diff-onebit", "--prior", prior, "--steps", 1, "--force")
    for task in ("onebit-inpainting", "onebit-cs"):
        path = tmp_path / task
        assert run("measure", cat, "-o", path, "--size", SIZE, "--task", task) == 0
        assert run("recover", path, "-o", tmp_path / "x.png", *recover) == 0
        options = ("--data-step", "exact", "--lam", 0.3)
        assert run("recover", path, "-o", tmp_path / "x.png", *recover, *options) == 0
    assert [(s.lam, s.data_step) for s in seen] == [
        (1.0, "adam"),
        (0.3, "exact"),
        (0.02, "adam"),
        (0.3, "exact"),
    ]


def test_devices_and_pipes_are_no_outputs(
    tmp_path: Path, cat: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null.png").symlink_to("/dev/null")
    options = ("--prior", "never loaded", "--force")
    picture = tmp_path / "null.png"
    assert "plain file" in refused(capsys, tmp_path, "recover", measured, "-o", picture, *options)
    assert "plain file" in refused(
        capsys, tmp_path, "measure", cat, "-o", tmp_path / "pipe", "--force"
    )


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


def test_a_huge_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    error = refused(capsys, tmp_path, "measure", tmp_path / "huge.png", "-o", tmp_path / "y")
    assert "pixels" in error


def test_existing_outputs_are_kept_without_force_and_replaced_with_it(
    tmp_path: Path, cat: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(b"precious")
    assert "--force" in refused(capsys, tmp_path, "measure", cat, "-o", measured)
    recover = ("recover", measured, "--prior", prior)
    assert "--force" in refused(capsys, tmp_path, *recover, "-o", old)
    new = tmp_path / "new.png"
    assert "--force" in refused(capsys, tmp_path, *recover, "-o", new, "--figure", old)
    assert "--force" in refused(capsys, tmp_path, "demo", "--prior", prior, "-o", old)
    assert run(*recover, "-o", old, "--force") == 0
    assert load_image(old).shape == (1, 3, SIZE, SIZE)


def test_outputs_that_could_not_be_written_are_refused_before_any_work(
    tmp_path: Path, cat: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recover = ("recover", measured, "--prior", "never loaded")
    picture = tmp_path / "x.png"
    assert "no such folder" in refused(capsys, tmp_path, *recover, "-o", tmp_path / "no" / "x.png")
    assert "ending" in refused(capsys, tmp_path, *recover, "-o", tmp_path / "x.txt")
    assert "ending" in refused(capsys, tmp_path, *recover, "-o", picture, "--trace", "x.json")
    assert "twice" in refused(capsys, tmp_path, *recover, "-o", picture, "--figure", picture)
    truth = ("--truth", cat, "--force")
    assert "twice" in refused(capsys, tmp_path, *recover, "-o", cat, *truth)
    assert ".safetensors" in refused(capsys, tmp_path, "measure", cat, "-o", tmp_path / "y.png")
    (tmp_path / "folder.png").mkdir()
    assert "folder" in refused(capsys, tmp_path, *recover, "-o", tmp_path / "folder.png")


def test_recovering_writes_picture_figure_trace_and_prints_the_quality(
    tmp_path: Path, cat: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, figure, trace = (tmp_path / n for n in ("x.png", "figure.png", "trace.csv"))
    arguments = ("--truth", cat, "--figure", figure, "--trace", trace, "--samples", 2)
    assert run("recover", measured, "-o", picture, "--prior", prior, "--steps", 3, *arguments) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("PSNR", "SSIM", "sign consistency", "NFE", "seconds"))
    assert load_image(picture).shape == (1, 3, SIZE, SIZE)
    assert load_image(figure).shape[-1] >= 5 * 192  # truth, Aᵀy, recovery, sample, std
    with trace.open() as file:
        rows = list(csv.DictReader(file))
    assert 1 <= len(rows) <= 3
    assert {"step", "image", "sigma", "misfit", "sign_consistency"} <= set(rows[0])


@pytest.mark.parametrize("solver", ["diffep", "diff-onebit"])
def test_the_same_seed_recovers_the_same_picture(
    tmp_path: Path, measured: Path, prior: str, solver: str
) -> None:
    for name in ("a.png", "b.png"):
        options = ("--solver", solver, "--prior", prior, "--steps", 2)
        assert run("recover", measured, "-o", tmp_path / name, *options) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_recovery_refuses_what_does_not_fit(
    tmp_path: Path, cat: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "x.png"
    large = tmp_path / "large"
    assert run("measure", cat, "-o", large, "--size", 32) == 0
    capsys.readouterr()
    assert "load a prior" in refused(
        capsys, tmp_path, "recover", large, "-o", picture, "--prior", prior
    )
    recover = ("recover", measured, "-o", picture)
    assert "no such prior" in refused(capsys, tmp_path, *recover, "--prior", "nobody")
    assert "--lam" in refused(capsys, tmp_path, *recover, "--lam", 1)
    assert "--data-step" in refused(
        capsys, tmp_path, *recover, "--solver", "dcdp", "--data-step", "exact"
    )
    diff_onebit = (*recover, "--prior", prior, "--solver", "diff-onebit")
    assert "lam" in refused(capsys, tmp_path, *diff_onebit, "--lam", 0)
    assert "lam" in refused(capsys, tmp_path, *diff_onebit, "--lam", "nan")
    assert "samples" in refused(
        capsys, tmp_path, *recover, "--solver", "diff-onebit", "--samples", 2
    )
    assert "none.png" in refused(
        capsys, tmp_path, *recover, "--prior", prior, "--truth", tmp_path / "none.png"
    )
    assert "not a measurement file" in refused(capsys, tmp_path, "recover", cat, "-o", picture)
    if not torch.cuda.is_available():
        assert "CUDA" in refused(capsys, tmp_path, *recover, "--device", "cuda")


def test_the_demo_draws_six_rows_and_prints_a_table(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--prior", prior, "--images", 2, "--samples", 2, "--rows", 40)
    for _ in range(2):  # its own default output needs no --force
        assert run("demo", *options) == 0
    out = capsys.readouterr().out
    assert "DiffOneBit" in out
    assert "DiffEP" in out
    figure = load_image(tmp_path / "diffsplit-demo.png")
    assert figure.shape[-2] == 6 * (128 + 4) - 4
    assert list(tmp_path.iterdir()) == [tmp_path / "diffsplit-demo.png"]


def test_info_describes_a_prior_and_refuses_other_files(
    tmp_path: Path, cat: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", prior) == 0
    assert "EDMPrior" in capsys.readouterr().out
    assert "not a measurement file" in refused(capsys, tmp_path, "info", cat)
    assert "no such prior" in refused(capsys, tmp_path, "info", "nobody")


def test_training_refuses_a_missing_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    error = refused(capsys, tmp_path, "train", tmp_path / "none", "--out", tmp_path / "out")
    assert "none" in error


def test_a_fault_of_ours_ends_with_one_and_shows_its_traceback_only_on_demand(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr("diffsplit.images.load_image", broken)
    measure = ("measure", cat, "-o", tmp_path / "y")
    assert "--debug" in refused(capsys, tmp_path, *measure, code=1)
    assert run(*measure, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("DIFFSPLIT_DEBUG", "1")
    assert run(*measure) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_diverged_solver_says_what_to_change(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        raise DivergenceError("use smaller steps.")

    monkeypatch.setattr("diffsplit.images.load_image", diverge)
    error = refused(capsys, tmp_path, "measure", cat, "-o", tmp_path / "y", code=1)
    assert error == "Error: use smaller steps.\n"


def test_an_interrupt_is_tidy(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffsplit.images.load_image", interrupt)
    assert run("measure", cat, "-o", tmp_path / "y") == 130
    assert capsys.readouterr().err == "Interrupted.\n"
    assert not (tmp_path / "y").exists()
