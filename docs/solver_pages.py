"""Writes docs/solvers/: a page for each solver, made of its docstrings, and an index.

    python docs/solver_pages.py                     the texts, and the pictures that are missing
    python docs/solver_pages.py --pictures          all pictures again
    python docs/solver_pages.py --pictures psld     that of one solver

Run it when a solver is added or its docstring changed; a test compares the texts with the
docstrings. A picture shows one bundled cat: the truth, the linear baseline of a problem, and what
the solver makes of the same measurements with the settings of the command line.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

import diffsplit as ds
from diffsplit import solvers
from diffsplit.io.images import example_cats
from diffsplit.metrics import psnr
from diffsplit.noise import seeded
from diffsplit.plots import side_by_side
from diffsplit.solvers import SOLVERS, Solver, linear_baseline
from diffsplit.solvers.description import blocks, described

FOLDER = Path(__file__).parent / "solvers"
SHAPE = (3, 64, 64)
NOISE = 0.05
ONE_BIT = {"diffep", "diff-onebit", "qcs-sgm", "sim-dmis", "back-projection"}
"""Solvers to show with single bits; the others show the first restoration that they accept."""
RESTORATION = ("super-resolution", "inpaint-box", "gaussian-deblur", "motion-deblur", "denoise")
QUICKER: dict[str, dict[str, Any]] = {
    "dcdp-latent": {"consistency": "pixel"},
    "qcs-sgm": {"levels": 100},
    "dps": {"steps": 300},
    "mcg": {"steps": 100},
    "red-diff": {"steps": 100},
    "daps": {"levels": 40},
    "latent-dps": {"steps": 50},
    "psld": {"steps": 200},
    "resample": {"steps": 50, "latent_steps": 30},
}
"""Settings of pictures that would take long on a CPU; the page says so."""
LARGEST = 40_000
"""Bytes of a picture."""


def code(text: str) -> str:
    """A docstring's words in Markdown, where one pair of quotes marks code, not two."""
    return text.replace("``", "`")


def cell(text: str) -> str:
    return code(text).replace("|", "\\|")


def prose(text: str) -> str:
    """A docstring in Markdown: paragraphs, lists, and formulas as they are."""
    parts: list[str] = []
    before = ""
    for kind, block in blocks(text):
        if kind == "formula":
            parts.append(f"\n```text\n{block}\n```\n")
        elif kind == "item":
            parts.append(f"{'' if before == 'item' else chr(10)}- {code(block)}\n")
        else:
            parts.append(f"\n{code(block)}\n")
        before = kind
    return "".join(parts).strip("\n")


def documented() -> list[type[Solver]]:
    """All solvers that the package shows."""
    known = [kind for kind in vars(solvers).values() if inspect.isclass(kind)]
    return [kind for kind in known if issubclass(kind, Solver)]


def page(name: str) -> str:
    """The text of a solver's page."""
    kind = SOLVERS[name]
    facts = described(kind, documented())
    prior, example = facts.needs
    needs = f"a {prior}, such as `{example}`" if prior else "no prior"
    picture = f"![A cat: the truth, the linear baseline, and {facts.title}]({name}.jpg)"
    if name in QUICKER:
        settings = ", ".join(f"{key}={value!r}" for key, value in QUICKER[name].items())
        picture += f"\n\nThe picture was drawn with `{settings}`."
    lines = [
        f"# {facts.title}",
        prose(facts.text),
        picture,
        f"- Name on the command line: `--solver {name}`\n- Needs: {needs}\n"
        f"- Accepts: {code(facts.accepts)}\n- Network evaluations: {code(facts.cost)}",
        f"## The algorithm\n\n{prose(facts.algorithm)}",
    ]
    if facts.parameters:
        rows = [
            f"| `{p.name}` | {f'`{cell(p.default)}`' if p.default else '–'} | {cell(p.meaning)} |"
            for p in facts.parameters
        ]
        table = "\n".join(["| parameter | default | meaning |", "|---|---|---|", *rows])
        lines.append(f"## Settings\n\n{table}")
    if facts.raises:
        rows = [f"- `{error}`: {code(reason)}" for error, reason in facts.raises]
        lines.append("## Errors\n\n" + "\n".join(rows))
    source = kind.__module__.replace(".", "/")
    lines.append(f"The code: [{source}.py](../../{source}.py). All solvers: [index](README.md).")
    return "\n\n".join(lines) + "\n"


def index() -> str:
    """The text of docs/solvers/README.md."""
    rows = []
    for name, kind in SOLVERS.items():
        facts = described(kind)
        rows.append(
            f"| [`{name}`]({name}.md) | {cell(facts.summary)} | {facts.needs[0] or '–'} | "
            f"{cell(facts.accepts)} | {cell(facts.cost)} |"
        )
    return (
        "# Solvers\n\nA page for each, made of its docstrings by `python docs/solver_pages.py`;\n"
        "`diffsplit solvers NAME` says the same in a terminal.\n\n"
        "| name | what it is | needs | accepts | network evaluations |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def texts() -> dict[str, str]:
    """Name of each file of text in the folder, and what is to be in it."""
    return {"README.md": index(), **{f"{name}.md": page(name) for name in SOLVERS}}


load_prior = functools.cache(ds.load_prior)


def panels(name: str) -> Tensor:
    """Truth, linear baseline and result on the first bundled cat, with PSNR."""
    truth = example_cats()[:1]
    for task in ("onebit-cs",) if name in ONE_BIT else (*RESTORATION, "onebit-cs"):
        problem = ds.tasks.problem(task, SHAPE, sigma=0.5 if task == "onebit-cs" else NOISE)
        y = problem.measure(truth, generator=seeded(0, "solver pages"))
        solver = SOLVERS[name].for_problem(problem, task, **QUICKER.get(name, {}))
        prior = None if solver.requires is None else load_prior(solver.requires.example)
        try:
            result = solver(problem, y, prior, generator=seeded(1, "solver pages")).image
        except ds.InputError:
            continue  # not a problem for this solver
        baseline = linear_baseline(problem)
        shown = [(type(baseline).__name__, baseline(problem, y).image), (name, result)]
        captions = [(f"{label} {psnr(x, truth).item():.1f} dB", x[0]) for label, x in shown]
        return side_by_side([(f"{task}: truth", truth[0]), *captions])
    raise SystemExit(f"{name} accepts none of the problems that its page could show.")


def draw(name: str) -> None:
    """Write a solver's picture, as JPEG of at most `LARGEST` bytes."""
    path = FOLDER / f"{name}.jpg"
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / "sheet.png"
        ds.save_image(panels(name), sheet)
        with Image.open(sheet) as picture:
            for quality in (90, 80, 70, 60, 50):
                picture.save(path, quality=quality, optimize=True)
                if path.stat().st_size <= LARGEST:
                    return


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pictures", nargs="*", choices=SOLVERS, help="draw these again, or all if none is named"
    )
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    wanted = set() if options.pictures is None else set(options.pictures or SOLVERS)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, "utf-8")
    for name in SOLVERS:
        if name in wanted or not (FOLDER / f"{name}.jpg").exists():
            print(f"drawing {name}", flush=True)
            draw(name)


if __name__ == "__main__":
    main()
