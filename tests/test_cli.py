"""The command line as a whole: help, where outputs go, and how each kind of failure ends."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SIZE, refused, run

from diffsplit.cli.main import COMMANDS
from diffsplit.errors import DivergenceError
from diffsplit.io.images import load_image

NAMES = [command.__name__ for command in COMMANDS]
ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for name in ("benchmarks", "studies") for path in (ROOT / name).glob("*.py"))


@pytest.mark.parametrize("command", [(), *((name,) for name in NAMES)])
def test_help_of_every_command_explains_and_shows_examples(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert "Examples" in out
    assert f"diffsplit {' '.join(command)}".rstrip() in out


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_of_every_benchmark_and_study_says_what_it_measures_and_measures_nothing(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem == "common":
        pytest.skip("not a benchmark by itself")
    pytest.importorskip("deepinv" if path.stem == "against_deepinv" else "matplotlib")
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, "common", raising=False)  # there is one in each folder
    monkeypatch.setattr("sys.argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {path.name}")
    assert len(out) > 150


@pytest.mark.parametrize(
    ("task", "question"),
    [("motion-blur", "did you mean 'motion-deblur'? Help"), ("xyz", "Help")],
)
def test_a_misspelled_choice_is_answered_with_the_nearest_one_in_plain_words(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], task: str, question: str
) -> None:
    error = refused(capsys, tmp_path, "measure", cat, "-o", tmp_path / "y", "--task", task)
    assert f"'--task': '{task}' is not one of" in error
    assert "Value error" not in error
    assert question in error
    assert ("did you mean" in error) == ("did you mean" in question)


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)


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


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_fault_of_ours_ends_with_one_and_shows_its_traceback_only_on_demand(
    tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "diffsplit.cli.measure.load_image", raising(ZeroDivisionError("by\nnothing"))
    )
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
    monkeypatch.setattr(
        "diffsplit.cli.measure.load_image", raising(DivergenceError("use smaller steps."))
    )
    error = refused(capsys, tmp_path, "measure", cat, "-o", tmp_path / "y", code=1)
    assert error == "Error: use smaller steps.\n"
