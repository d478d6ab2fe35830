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
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.cli.demo_restoration import picture
from diffsplit.cli.methods import Method, PurifierName, SolverName
from diffsplit.cli.restoration import Restoration, restoration_operator
from diffsplit.errors import DivergenceError
from diffsplit.images import load_image
from diffsplit.operators import Downsample, Identity, PixelMask
from diffsplit.priors import ConsistencyPrior, EDMPrior, LatentPrior, load_prior
from diffsplit.priors.edm import build_unet
from diffsplit.solvers import DCDP, DiffEP, DiffOneBit, LatentDCDP

SIZE = 16
RESTORATIONS = tuple(task.value for task in Restoration)
COMMANDS = ("demo", "measure", "recover", "info", "train")


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny prior with random weights: good for nothing but quick."""
    folder = tmp_path_factory.mktemp("prior")
    EDMPrior(build_unet(SIZE, 2, (16, 32)).eval(), sigma_data=0.5).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def consistency_prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("consistency")
    ConsistencyPrior(build_unet(SIZE, 2, (16, 32)).eval(), patch=2).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def latent_prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    from diffusers import AutoencoderKL, UNet2DModel

    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=SIZE,
    )
    unet = UNet2DModel(
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
    )
    denoiser = EDMPrior(unet.eval(), sigma_data=1.0, patch=1)
    folder = tmp_path_factory.mktemp("latent")
    LatentPrior.from_models(autoencoder.eval(), denoiser).save(folder)
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


def test_dcdp_takes_each_kind_of_prior(
    tmp_path: Path,
    cat: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, picture = tmp_path / "y", tmp_path / "x.png"
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", "motion-deblur") == 0
    runs: list[tuple[str, tuple[str, ...], int]] = [
        (prior, ("dcdp", "--purifier", "ddim"), 21),  # the second round is at timestep 1
        (consistency_prior, ("dcdp", "--purifier", "consistency"), 2),
        (latent_prior, ("dcdp-latent",), 2),
        (latent_prior, ("dcdp-latent", "--purifier", "ddim"), 21),
    ]
    for folder, solver, evaluations in runs:
        options = ("--prior", folder, "--solver", *solver, "--steps", 2, "--force")
        assert run("recover", path, "-o", picture, *options) == 0
        table = capsys.readouterr().out.splitlines()
        (row,) = (line.split("│") for line in table if line.startswith("│"))
        assert (row[1].strip(), row[2].strip()) == (solver[0], str(evaluations))
        assert load_image(picture).shape == (1, 3, SIZE, SIZE)


def test_dcdp_has_the_settings_of_its_paper_for_each_task_and_version() -> None:
    shape = (3, SIZE, SIZE)
    noisy = Problem(Identity(shape), GaussianNoise(0.0))
    blind = Problem(Identity(shape), OneBit(0.5))
    latent, dcdp = SolverName.dcdp_latent, SolverName.dcdp

    assert Method(dcdp).solver(noisy, "inpaint-box") == DCDP.preset(
        "inpaint-box", SIZE, purifier="tweedie"
    )
    assert Method(dcdp, steps=4, purifier=PurifierName.ddim).solver(noisy, "motion-deblur") == (
        DCDP.preset("motion-deblur", SIZE, purifier="ddim", rounds=4)
    )
    consistency = Method(dcdp, purifier=PurifierName.consistency)
    assert consistency.solver(noisy, "super-resolution") == DCDP.preset(
        "super-resolution", SIZE, purifier="consistency"
    )
    for task, approach in (("super-resolution", "latent"), ("gaussian-deblur", "pixel")):
        solver = Method(latent).solver(noisy, task)
        assert solver == LatentDCDP.preset(task, SIZE, purifier="tweedie")
        assert isinstance(solver, LatentDCDP)
        assert solver.consistency == approach
    assert Method(latent).solver(noisy, "unknown") == LatentDCDP(purifier="tweedie")
    assert Method(latent).solver(blind, None) == LatentDCDP(purifier="tweedie", tau=20)
    assert consistency.solver(blind, None) == DCDP(purifier="consistency", tau=20)


def test_the_number_of_steps_reaches_diffep_whether_it_renoises_or_not() -> None:
    problem = Problem(Identity((3, SIZE, SIZE)), GaussianNoise(0.1))
    solver = Method(SolverName.diffep, steps=3).solver(problem, None)
    assert isinstance(solver, DiffEP)
    assert (solver.iterations, solver.levels) == (3, 3)
    assert Method(SolverName.diffep).solver(problem, None) == DiffEP()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--purifier", "ddim"), "--purifier belongs to --solver dcdp"),
        (("--solver", "diff-onebit", "--purifier", "consistency"), "--purifier belongs"),
        (("--solver", "dcdp-latent", "--purifier", "consistency"), "choose ddim or tweedie"),
        (("--solver", "dcdp-latent", "--samples", 2), "leave out --samples"),
        (("--solver", "dcdp-latent", "--lam", 1), "--lam belong to"),
        (("--solver", "dcdp", "--purifier", "none"), "--purifier"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_options_of_another_solver_are_refused(
    tmp_path: Path,
    measured: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--prior", "never loaded")
    assert reason in refused(capsys, tmp_path, *recover, *options)


def test_a_prior_of_another_kind_is_refused_with_the_solver_that_takes_it(
    tmp_path: Path,
    measured: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    solvers: dict[str, tuple[str, ...]] = {
        prior: ("diffep", "diff-onebit", "dcdp"),
        consistency_prior: ("dcdp --purifier consistency",),
        latent_prior: ("dcdp-latent",),
    }
    for folder, takers in solvers.items():
        for others in (set(solvers[other]) for other in solvers if other != folder):
            for solver in others:
                options = ("--solver", *solver.split(), "--prior", folder)
                error = refused(
                    capsys, tmp_path, "recover", measured, "-o", tmp_path / "x.png", *options
                )
                assert f"and --solver {takers[0]} takes it" in error
                assert f"--solver {solver} needs a" in error
    for folder in (consistency_prior, latent_prior):
        picture = tmp_path / "demo.png"
        assert "takes it" in refused(capsys, tmp_path, "demo", "--prior", folder, "-o", picture)


def test_without_a_prior_each_solver_loads_the_bundled_one_of_its_kind(
    tmp_path: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(name: str, **_: object) -> None:
        seen.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr("diffsplit.priors.load_prior", load)
    for solver in ("diffep", "diff-onebit", "dcdp", "dcdp-latent"):
        run("recover", measured, "-o", tmp_path / "x.png", "--solver", solver)
    consistency = ("--solver", "dcdp", "--purifier", "consistency")
    run("recover", measured, "-o", tmp_path / "x.png", *consistency)
    assert seen == 3 * ["cats-64"] + ["cats-64-latent", "cats-64-consistency"]


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
    assert "2 cats of 16×16 pixels, 40 bits each, σ = 0.5" in out
    assert "DiffOneBit" in out
    assert "DiffEP" in out
    figure = load_image(tmp_path / "diffsplit-demo.png")
    assert figure.shape[-2] == 6 * (128 + 4) - 4
    assert list(tmp_path.iterdir()) == [tmp_path / "diffsplit-demo.png"]


@pytest.mark.parametrize("task", ["logistic", "onebit-inpainting", "quantized"])
def test_the_demo_shows_every_task_of_few_bits(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    options = ("--prior", prior, "--images", 1, "--samples", 2, "-o", tmp_path / "x.png")
    rows = () if task == "onebit-inpainting" else ("--rows", 40)
    assert run("demo", "--task", task, *rows, *options) == 0
    out = capsys.readouterr().out
    title = {
        "logistic": "40 bits each, logistic",
        "onebit-inpainting": "384 bits each, σ = 0.5",
        "quantized": "40 measurements of 4 bits each, σ = 0.5",
    }
    assert f"1 cats of 16×16 pixels, {title[task]}" in out
    assert "sign consistency" in out
    assert load_image(tmp_path / "x.png").shape[-2] == 6 * (128 + 4) - 4


@pytest.mark.parametrize(
    ("task", "baseline"),
    [
        ("inpaint-box", "mean fill"),
        ("super-resolution", "bicubic"),
        ("motion-deblur", "Wiener"),
    ],
)
def test_the_demo_of_a_restoration_compares_baseline_dcdp_and_diffep(
    tmp_path: Path,
    prior: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    baseline: str,
) -> None:
    monkeypatch.setattr("diffsplit.priors.bundled_priors", lambda: ["cats-64"])
    options = ("--prior", prior, "--images", 1, "--samples", 2, "-o", tmp_path / "x.png")
    assert run("demo", "--task", task, *options) == 0
    out = capsys.readouterr().out
    methods = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    versions = ["DCDP (V1)", "DCDP (V2)"]
    assert methods == [baseline, *versions, "DiffEP, mean", "DiffEP, 2 samples"]
    assert "left out, since no bundled prior fits: DCDP (CM), DCDP, latent" in out
    assert "sign consistency" not in out
    rows = 8  # truth, measurement, baseline, two of DCDP, DiffEP's mean, sample and deviation
    assert load_image(tmp_path / "x.png").shape[-2] == rows * (128 + 4) - 4


def test_the_demo_takes_in_the_bundled_priors_that_fit_its_images(
    tmp_path: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {"cats-64-consistency": consistency_prior, "cats-64-latent": latent_prior}
    monkeypatch.setattr("diffsplit.priors.bundled_priors", lambda: list(folders))
    monkeypatch.setattr(
        "diffsplit.priors.load_prior", lambda name, **_: load_prior(folders.get(name, name))
    )
    options = ("--images", 1, "--samples", 2, "--force", "-o", tmp_path / "x.png")
    assert run("demo", "--task", "denoise", "--prior", prior, *options) == 0
    out = capsys.readouterr().out
    assert "DCDP (CM)" in out
    assert "DCDP, latent" in out
    assert "left out" not in out
    assert load_image(tmp_path / "x.png").shape[-2] == 10 * (128 + 4) - 4
    small = tmp_path / "small"
    EDMPrior(build_unet(8, 2, (16, 32)).eval(), sigma_data=0.5).save(small)
    assert run("demo", "--task", "denoise", "--prior", small, *options) == 0
    assert "left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--task", "denoise", "--rows", 3), "no --rows"),
        (("--task", "inpaint-box", "--operator", "dct"), "no --operator"),
        (("--task", "denoise", "--sigma", 0), "noise"),
        (("--task", "logistic", "--sigma", 0.5), "--sigma"),
        (("--task", "onebit-inpainting", "--operator", "dct"), "--operator"),
        (("--sigma", 0), "--sigma 0.001 or more"),
        (("--task", "quantized", "--sigma", 0), "--sigma 0.001 or more"),
        (("--sigma", "nan"), "sigma"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_the_demo_refuses_options_that_do_not_belong_to_its_task(
    tmp_path: Path,
    prior: str,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    demo = ("demo", "--prior", prior, "-o", tmp_path / "x.png", "--images", 1)
    assert reason in refused(capsys, tmp_path, *demo, *options)


def test_in_pictures_of_measurements_missing_pixels_are_gray_and_small_images_large() -> None:
    shape, exact = (3, 8, 8), GaussianNoise(0.0)
    x = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    masked = Problem(PixelMask.box(shape, 2, 2, 4, 4), exact)
    shown = picture(masked, masked.operator.apply(x))
    assert bool((shown[..., 2:6, 2:6] == 0).all())
    assert torch.equal(shown[..., :2, :], x[..., :2, :])
    small = Problem(Downsample(shape, 4), exact)
    y = small.operator.apply(x)
    assert torch.equal(picture(small, y), y.repeat_interleave(4, 2).repeat_interleave(4, 3))


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
