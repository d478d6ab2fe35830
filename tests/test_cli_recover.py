"""`diffsplit recover`: from a file of measurements to a picture, a figure, a trace and numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from command_line import SIZE, refused, run

from diffsplit.io import measurements as measurement_file
from diffsplit.cli.restoration import Restoration
from diffsplit.plots.figures import side_by_side
from diffsplit.io.images import load_image


@pytest.mark.parametrize("task", [*(task.value for task in Restoration), "onebit-cs"])
def test_dcdp_recovers_every_restoration_task_and_bits(
    tmp_path: Path, cat: Path, prior: str, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    path = tmp_path / "y"
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", task) == 0
    options = ("--solver", "dcdp", "--prior", prior, "--steps", 2)
    assert run("recover", path, "-o", tmp_path / "x.png", *options) == 0
    assert load_image(tmp_path / "x.png").shape == (1, 3, SIZE, SIZE)


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


@pytest.mark.parametrize(
    ("task", "label"), [("super-resolution", "measurement"), ("onebit-cs", "A^T y")]
)
def test_the_figure_shows_pictures_as_they_were_measured_and_random_sums_back_projected(
    tmp_path: Path,
    cat: Path,
    prior: str,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    label: str,
) -> None:
    drawn = []

    def draw(panels: list[tuple[str, torch.Tensor]], scale: int) -> torch.Tensor:
        drawn.extend(panels)
        return side_by_side(panels, scale)

    monkeypatch.setattr("diffsplit.plots.figures.side_by_side", draw)
    path = tmp_path / "y"
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", task) == 0
    outputs = ("-o", tmp_path / "x.png", "--figure", tmp_path / "figure.png")
    assert run("recover", path, *outputs, "--prior", prior, "--steps", 2) == 0
    assert [name for name, _ in drawn] == [label, "recovery"]
    if task == "super-resolution":
        y = measurement_file.load(path).y[0]
        assert torch.equal(drawn[0][1][:, ::4, ::4], y)


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
