"""`diffsplit bench` and `diffsplit compare`: from one command to results and a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_cases import rows_of
from command_line import refused, run, with_reasons
from PIL import Image

TASKS = "onebit-cs:ratio=1/4:operator=hadamard,inpaint-random:sigma=0.1"
SOLVERS = "back-projection,dcdp:rounds=2:tau=3"


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    """A folder of pictures of one's own, of any size."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40 + number, 30), (60 * number, 80, 90)).save(folder / f"{number}.jpg")
    return folder


def test_one_command_compares_solvers_on_a_folder_and_makes_a_page(
    holiday: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("compare", holiday, "--task", TASKS, "--solvers", SOLVERS, "--prior", prior)
    assert run(*command, "-o", out) == 0
    shown = capsys.readouterr()
    assert "12 done, 0 failed, 0 missing; 12 computed" in shown.out
    assert f"The page: {out / 'report' / 'index.html'}" in shown.out
    assert "cat" not in shown.err
    page = (out / "report" / "index.html").read_text("utf-8")
    for text in ("Comparison on holiday", "onebit-cs, ratio 1/4", "dcdp, rounds 2, tau 3"):
        assert text in page
    assert {entry.image for entry in rows_of(out)} == {"0.jpg", "1.jpg", "2.jpg"}
    assert run(*command, "-o", out, "--images", 2) == 0
    assert "8 done, 0 failed, 0 missing; 0 computed" in capsys.readouterr().out


def test_who_gives_no_prior_is_told_that_it_knows_cats_alone(
    holiday: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("diffsplit.cli.bench._priors", lambda names: ({"denoiser": prior}, 16))
    rest = ("--task", "denoise", "--solvers", "back-projection")
    assert run("compare", holiday, *rest, "-o", tmp_path / "a") == 0
    assert "without --prior the bundled models of cats are taken" in capsys.readouterr().err
    assert run("compare", "cats", *rest, "-o", tmp_path / "b") == 0
    assert "models of cats" not in capsys.readouterr().err


def test_a_benchmark_of_a_file_is_run_and_resumed_with_fields_set_otherwise(
    prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"title: mine\ndata: cats\nsize: 16\npriors: {{denoiser: {prior}}}\n"
        "rows: [{label: half, task: inpaint-random}]\n"
        "solvers: [{label: A, solver: back-projection}]\n"
    )
    assert run("bench", file, "-o", tmp_path / "out", "--set", "images=2") == 0
    shown = capsys.readouterr().out
    assert "2 done, 0 failed, 0 missing; 2 computed" in shown
    assert "diffsplit report" in shown
    assert run("bench", file, "-o", tmp_path / "out", "--set", "images=3") == 0
    assert "3 done, 0 failed, 0 missing; 1 computed" in capsys.readouterr().out


def test_what_failed_is_said_with_its_reason_once(
    holiday: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ("--task", "onebit-cs:operator=hadamard", "--solvers", "wiener,back-projection")
    assert run("compare", holiday, *rest, "--prior", prior, "-o", tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "3 done, 3 failed" in shown.out
    assert shown.err.count("Failed on 3 images: wiener, onebit-cs, operator hadamard: ") == 1


def test_what_is_missing_is_said_with_its_reason(
    prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"title: mine\ndata: cats\nimages: 2\nsize: 16\npriors: {{denoiser: {prior}}}\n"
        "rows: [{label: half, task: inpaint-random}]\n"
        "solvers: [{label: A, solver: back-projection}, {label: B, solver: difep}]\n"
    )
    assert run("bench", file, "-o", tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert "Missing on 2 images: B, half: " in error
    assert "did you mean diffep?" in error


def test_without_a_terminal_progress_is_a_line_now_and_then(
    holiday: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    command = ("compare", holiday, "--task", TASKS, "--solvers", SOLVERS, "--prior", prior)
    assert run(*command, "-o", tmp_path / "quick") == 0
    assert " of 12 (" not in capsys.readouterr().err
    monkeypatch.setattr("diffsplit.cli.bench.PAUSE", 0.0)
    assert run(*command, "-o", tmp_path / "slow") == 0
    assert "12 of 12 (" in capsys.readouterr().err


@with_reasons(
    (("--task", "deblur", "--solvers", "dcdp"), "there is no task 'deblur'; choose from"),
    (("--task", "denoise", "--solvers", "dcpd"), "there is no solver 'dcpd'; choose from"),
    (("--task", "denoise:sigma", "--solvers", "dcdp"), "write KEY=VALUE after a colon"),
    (("--task", "denoise:rows=9", "--solvers", "dcdp"), "the task denoise has no rows"),
    (("--task", "denoise", "--solvers", "dcdp:speed=9"), "has no setting 'speed'"),
    (("--task", "denoise", "--solvers", "dcdp,dcdp"), "have the label 'dcdp'"),
)
def test_a_comparison_that_makes_no_sense_is_refused_in_one_sentence(
    holiday: Path, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], reason: str,
) -> None:  # fmt: skip
    command = ("compare", holiday, *options, "--prior", prior, "-o", tmp_path / "out")
    assert reason in refused(capsys, tmp_path, *command)


def test_a_folder_that_is_not_there_is_refused(
    prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("compare", tmp_path / "none", "--task", "denoise", "--solvers", "dcdp")
    assert run(*command, "--prior", prior, "-o", tmp_path / "out") == 2
    assert "no such folder" in capsys.readouterr().err
