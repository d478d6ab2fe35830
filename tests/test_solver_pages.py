"""The pages of docs/solvers/ say what the docstrings of the solvers say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from diffsplit.solvers import SOLVERS

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "solvers"


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.delitem(sys.modules, "solver_pages", raising=False)
    return importlib.import_module("solver_pages")


def test_every_page_on_disk_is_what_the_docstrings_give(pages: ModuleType) -> None:
    texts = pages.texts()
    assert set(texts) == {f"{name}.md" for name in SOLVERS} | {"README.md"}
    written = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")}
    stale = [name for name in texts | written if texts.get(name) != written.get(name)]
    assert stale == [], "run python docs/solver_pages.py"


def test_every_page_has_a_small_picture_and_no_picture_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.jpg")} == set(SOLVERS)
    for path in FOLDER.glob("*.jpg"):
        assert path.stat().st_size <= 40_000
        with Image.open(path) as picture:
            assert picture.width >= 3 * 64


def test_a_page_keeps_the_formulas_and_its_table_the_columns(pages: ModuleType) -> None:
    text = pages.page("dcdp")
    assert text.startswith("# DCDP\n\nDCDP in pixels, for any channel with a gradient.\n")
    assert "```text\nx_k = τ gradient steps" in text
    assert "``" not in text.replace("```", "")
    assert "| `rounds` | `10` | K (paper: 10 or 20). |" in text
    assert "- `DivergenceError`: a round left the finite numbers" in text
    assert pages.prose("One.\n\n- a\n  b\n- c") == "One.\n\n- a b\n- c"
    assert pages.cell("|a| in ``b``") == r"\|a\| in `b`"


def test_a_picture_shows_the_first_problem_that_a_solver_accepts(
    pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def noted(panels: list[tuple[str, object]]) -> None:
        captions.extend(label for label, _ in panels)

    monkeypatch.setattr(pages, "side_by_side", noted)
    pages.panels("mean-fill")
    assert captions[0] == "inpaint-box: truth"
    assert captions[1].startswith("MeanFill ")
    assert captions[2].startswith("mean-fill ")
    assert captions[1].split()[1:] == captions[2].split()[1:]
