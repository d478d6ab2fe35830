"""`diffsplit report`: a folder of results becomes files, and anything else one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import refused, run, with_reasons
from folders import contents
from PIL import Image
from runs_to_report import rich_store

from diffsplit.bench.store import Label, Store
from diffsplit.report.summary import Summary
from diffsplit.report.tables import entries_csv, markdown

TEXTS = ("html", "markdown", "latex", "csv")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rich run in a real store; the plots, which take long to draw, have their own tests."""
    monkeypatch.setattr("diffsplit.report.page.drawings", lambda summary: [])
    monkeypatch.setattr("diffsplit.report.write.drawings", lambda summary: [])
    memory = rich_store()
    with Store.open(tmp_path / "run", write=True) as store:
        labels = [Label(e.key, e.row, e.solver, e.image) for e in memory.entries()]
        store.plan(labels, memory.facts())
        store.add_all((entry, memory.pictures(entry.key)) for entry in memory.entries())
    return tmp_path / "run"


def test_everything_is_written_and_listed(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert run("report", results) == 0
    folder = results / "report"
    written = {path.name for path in folder.iterdir()}
    assert {"index.html", "table.md", "table.tex", "results.csv", "paired.csv"} < written
    assert sorted(map(Path, capsys.readouterr().out.splitlines())) == sorted(folder.iterdir())
    assert {"pictures-1-4-y-0-05.png", "overview.png"} < written
    summary = Summary(rich_store())
    assert (folder / "table.md").read_text("utf-8") == markdown(summary)
    assert (folder / "results.csv").read_text("utf-8") == entries_csv(summary)


def test_only_what_is_asked_for_is_written_where_it_is_asked_for(
    results: Path, tmp_path: Path
) -> None:
    before = contents(results)
    out = tmp_path / "new" / "paper"
    assert run("report", results, "-o", out, "--format", "latex, csv") == 0
    assert {path.name for path in out.iterdir()} == {"table.tex", "results.csv", "paired.csv"}
    assert contents(results) == before, "a report changes nothing of the results"


def test_figures_of_pictures_have_maps_unless_they_are_not_wanted(results: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")

    def height() -> int:
        with Image.open(results / "report" / "pictures-1-4-y-0-05.png") as picture:
            return picture.height

    assert run("report", results, "--format", "figures") == 0
    full = height()
    assert run("report", results, "--format", "figures", "--no-maps") == 0
    assert height() < 0.7 * full


def test_the_same_results_give_the_same_files_and_replace_the_old(results: Path) -> None:
    formats = ("--format", ",".join(TEXTS))
    assert run("report", results, *formats) == 0
    first = contents(results / "report")
    assert run("report", results, *formats) == 0
    assert contents(results / "report") == first


def test_no_pictures_are_shown_if_none_are_wanted(results: Path) -> None:
    assert run("report", results, "--pictures", 0) == 0
    assert not list((results / "report").glob("pictures-*"))
    assert "<dialog" not in (results / "report" / "index.html").read_text("utf-8")


@with_reasons(
    (("nowhere",), "nowhere: no such folder; give the one that diffsplit bench wrote."),
    (("empty",), "holds no results"),
    (("file",), "no such folder"),
    (("run", "--format", "word"), "'word' is no format; choose from html"),
    (("run", "--format", ""), "is no format"),
    (("run", "-o", "file"), "is a file; give the name of a folder with -o."),
    (("run", "-o", "file/inside"), "is a file; give the name of a folder with -o."),
    (("broken",), "cannot be used as a store of results"),
)
def test_a_bad_call_is_refused_in_one_sentence(
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.sqlite").write_text("no database at all, but some text")
    (tmp_path / "file").write_text("text")
    assert reason in refused(capsys, tmp_path, "report", *options)


def test_without_matplotlib_all_but_the_figures_is_written(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("diffsplit.cli.results.find_spec", lambda name: None)
    assert run("report", results) == 0
    assert "matplotlib is not installed" in capsys.readouterr().err
    assert (results / "report" / "index.html").is_file()
