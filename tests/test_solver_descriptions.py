"""What solvers say of themselves: in parts, and on the command line."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import refused, run

from diffsplit import solvers
from diffsplit.solvers import DCDP, PSLD, SOLVERS, LatentDCDP, Solver
from diffsplit.solvers.description import Parameter, blocks, described, first_sentence

PUBLIC = [kind for kind in vars(solvers).values() if inspect.isclass(kind)]
ALL = [kind for kind in PUBLIC if issubclass(kind, Solver)]


@dataclass(frozen=True)
class Base(Solver):
    """A base.

    Attributes:
        inherited: of the base.
    """

    inherited: float = 0.5


@dataclass(frozen=True)
class Documented(Base):
    """The first sentence, on
    two lines. The second, of `code`.

    A paragraph.

    Attributes:
        low, high: the bounds,
            in two lines (paper: 3).
        size: see `Base`.

    Raises:
        InputError: something is wrong: a colon.
    """

    low: int = 3
    high: str | None = None
    names: list[str] = field(default_factory=lambda: ["a"])
    size: int = 1

    @property
    def requires(self) -> None:
        return None

    def _solve(self, problem: Any, y: Any, prior: Any, generator: Any) -> Any:
        raise NotImplementedError


def test_a_docstring_is_read_in_its_parts() -> None:
    facts = described(Documented)
    assert facts.title == "Documented"
    assert facts.summary == "The first sentence, on two lines."
    assert facts.text.endswith("\n\nA paragraph.")
    assert facts.algorithm == "What solvers say of themselves: in parts, and on the command line."
    assert facts.parameters == (
        Parameter("inherited", "0.5", "of the base."),
        Parameter("low", "3", "the bounds, in two lines (paper: 3)."),
        Parameter("high", "None", "the bounds, in two lines (paper: 3)."),
        Parameter("names", "['a']", ""),
        Parameter("size", "1", "see `Base`."),
    )
    assert facts.raises == (("InputError", "something is wrong: a colon."),)
    assert (facts.needs, facts.accepts, facts.cost) == (("", ""), "any problem", "no network")
    assert first_sentence("One of `two`. Two.") == "One of two."


def test_a_parameter_of_a_common_base_is_explained_by_the_solver_that_explains_it() -> None:
    known = {p.name: p for p in described(LatentDCDP, [DCDP]).parameters}
    own = {p.name: p for p in described(DCDP).parameters}
    assert known["rounds"] == own["rounds"]
    assert known["rounds"].meaning.startswith("K (paper")
    assert all(not p.meaning for p in described(LatentDCDP).parameters if p.name == "rounds")
    assert "bussgang" in next(p.meaning for p in described(PSLD).parameters if p.name == "reading")


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_explains_itself_and_all_its_parameters(name: str) -> None:
    kind = SOLVERS[name]
    facts = described(kind, ALL)
    assert facts.summary.endswith(".")
    assert facts.algorithm
    assert is_dataclass(kind)
    assert [p.name for p in facts.parameters] == [f.name for f in fields(kind)]
    assert [p.name for p in facts.parameters if not p.meaning] == []


def test_paragraphs_are_joined_and_formulas_and_items_are_kept_apart() -> None:
    text = (
        "A title.\n\nOne\ntwo:\n\n    a = b\n      + c\n\n    d = e\n\n"
        "Three:\n- first\n  item\n- second\nFour:\n    f"
    )
    assert list(blocks(text)) == [
        ("text", "A title."),
        ("text", "One two:"),
        ("formula", "a = b\n  + c\n\nd = e"),
        ("text", "Three:"),
        ("item", "first item"),
        ("item", "second"),
        ("text", "Four:"),
        ("formula", "f"),
    ]


def test_the_list_fits_a_terminal_of_80_columns_with_each_name_and_need_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("solvers") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines if line[:1].strip()}
    assert set(SOLVERS) <= set(rows)
    assert rows["dcdp"][1:6] == ["diffusion", "10", "to", "20", "or"]
    assert rows["dcdp-latent"][1] == "latent"
    assert rows["wiener"][1:3] == ["–", "–"]
    assert rows["qcs-sgm"][2] == "11,555"
    assert len(lines) <= 3 * len(SOLVERS) + 5


@pytest.mark.parametrize("name", SOLVERS)
def test_one_solver_is_described_with_formulas_parameters_and_defaults(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("solvers", name) == 0
    out = capsys.readouterr().out
    facts = described(SOLVERS[name], ALL)
    words = " ".join(out.split())
    assert out.startswith(f"{name}: {facts.title}\n")
    for kind, block in blocks(facts.algorithm):
        if kind == "formula":
            assert all(f"    {line}".rstrip() in out for line in block.splitlines())
    for parameter in facts.parameters:
        assert f"\n    {parameter.name} = {parameter.default}"[:60] in out
        assert " ".join(parameter.meaning.replace("`", "").split()) in words
    assert facts.accepts in words


def test_a_misspelled_solver_is_answered_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "did you mean 'psld'?" in refused(capsys, tmp_path, "solvers", "plsd")
