"""What a solver's docstrings say of it, in parts: for ``diffsplit solvers`` and its page in docs/.

The formulas and sources stand in the docstring of a solver's module, what it is and its parameters
in that of its class; a parameter that a base class declares may be explained there, or in another
solver of that base.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from diffsplit.solvers.base import Solver

__all__ = ["Description", "Parameter", "blocks", "described", "first_sentence"]

_SECTION = re.compile(r"^(Attributes|Args|Raises|Returns|Warns|Yields|Example|Examples):$")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a solver.

    Attributes:
        name: of the field.
        default: as it is written in Python; "" where there is none.
        meaning: of it, one paragraph; "" where no docstring says it.
    """

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Description:
    """A solver in words.

    Attributes:
        title: name of the class.
        summary: what it is, in a sentence.
        algorithm: docstring of its module: formulas and sources.
        text: docstring of its class without the sections.
        parameters: in their order.
        raises: error and reason.
        needs: kind of prior, and a bundled one; both "" where it needs none.
        accepts, cost: as in `Solver`.
    """

    title: str
    summary: str
    algorithm: str
    text: str
    parameters: tuple[Parameter, ...]
    raises: tuple[tuple[str, str], ...]
    needs: tuple[str, str]
    accepts: str
    cost: str


def described(kind: type[Solver], others: Iterable[type[Solver]] = ()) -> Description:
    """The parts of a solver's docstrings.

    Args:
        others: solvers that may explain a parameter which they have from the same base.
    """
    text, sections = _parts(kind)
    needed = kind().requires
    return Description(
        title=kind.__name__,
        summary=first_sentence(text),
        algorithm=inspect.cleandoc(sys.modules[kind.__module__].__doc__ or ""),
        text=text,
        parameters=tuple(_parameters(kind, tuple(others))),
        raises=tuple(_entries(sections.get("Raises", ""))),
        needs=("", "") if needed is None else (needed.kind, needed.example),
        accepts=kind.accepts,
        cost=kind.cost,
    )


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line and without quotes."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0].replace("`", "")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """A docstring as ("text", a paragraph on one line), ("item", of a list) and ("formula", lines).

    A formula is what is indented by four spaces or more; its lines are kept.
    """
    kind = ""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            new = kind if kind == "formula" else ""
        elif line.startswith("- ") or (kind == "item" and line.startswith("  ")):
            new = "item"
        else:
            new = "formula" if line.startswith("    ") else "text"
        if new != kind or line.startswith("- "):
            if kind:
                yield kind, _joined(kind, lines)
            lines = []
        kind = new
        lines.append(line)
    if kind:
        yield kind, _joined(kind, lines)


def _joined(kind: str, lines: list[str]) -> str:
    if kind == "formula":
        return textwrap.dedent("\n".join(lines)).rstrip()
    return " ".join(" ".join(lines).removeprefix("- ").split())


def _parts(kind: type) -> tuple[str, dict[str, str]]:
    """The docstring of a class: its text, and its sections by name."""
    text: list[str] = []
    sections: dict[str, list[str]] = {}
    current = text
    doc = kind.__dict__.get("__doc__") or ""
    for line in inspect.cleandoc(doc).splitlines():
        heading = _SECTION.match(line)
        if heading:
            current = sections.setdefault(heading[1], [])
        else:
            current.append(line)
    joined = {name: textwrap.dedent("\n".join(lines)) for name, lines in sections.items()}
    return "\n".join(text).strip(), joined


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """``name: words`` and its further lines, one entry for each of ``name, name: words``."""
    for names, words in re.findall(r"^([\w, ]+): (.*(?:\n .*)*)", section, re.MULTILINE):
        for name in names.split(", "):
            yield name.strip(), " ".join(words.split())


def _parameters(kind: type[Solver], others: tuple[type[Solver], ...]) -> Iterator[Parameter]:
    own: tuple[Field[Any], ...] = fields(kind) if is_dataclass(kind) else ()
    for field in own:
        yield Parameter(field.name, _default(field), _meaning(field.name, kind, others))


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    return "" if field.default_factory is MISSING else repr(field.default_factory())


def _meaning(name: str, kind: type[Solver], others: tuple[type[Solver], ...]) -> str:
    """What the class says of a field, else its bases, else another solver of the same base.

    Where that says "see `Other`", what the other says of it follows.
    """
    declares = [base for base in kind.__mro__ if name in inspect.get_annotations(base)]
    relatives = [other for other in others if declares and issubclass(other, declares[-1])]
    meaning = next(filter(None, (_said(name, place) for place in (*kind.__mro__, *relatives))), "")
    reference = re.search(r"see `(\w+)`", meaning)
    for place in (*kind.__mro__, *others):
        if reference and place.__name__ == reference[1] and _said(name, place):
            return f"{meaning.rstrip('.')}: {_said(name, place)}"
    return meaning


def _said(name: str, place: type) -> str:
    return dict(_entries(_parts(place)[1].get("Attributes", ""))).get(name, "")
