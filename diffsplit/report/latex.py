r"""The table in LaTeX, as papers print it: methods down, tasks across, quantities below the tasks.

It needs the packages booktabs and graphicx. A panel holds two tasks, and the panels of a table
stand below each other; one that is wider than the page is shrunk to its width. What the paper
prints for a method stands in the line below ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffsplit.report.quantities import Quantity
from diffsplit.report.summary import Cell, Summary

__all__ = ["latex", "latex_text"]

_SHORT = {"nfe": "NFE", "seconds": "s"}
"""Titles, as papers shorten them."""
_FITTED = "\\ifdim\\wd0>\\textwidth\\resizebox{\\textwidth}{!}{\\box0}\\else\\box0\\fi"
"""Prints what was put into box 0, at its own size if that fits the page."""
TASKS = 2
"""Side by side in a panel."""

_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # the straight one needs a font encoding that papers may not use
    "[": "{[}",  # after a line break it would start an argument
    "–": "--",
    "—": "---",
    "“": "``",
    "”": "''",
    "’": "'",
    "…": r"\dots{}",
}
_GREEK = (
    r"α\alpha β\beta γ\gamma δ\delta ε\varepsilon ζ\zeta η\eta θ\theta κ\kappa λ\lambda μ\mu ν\nu "
    r"ξ\xi π\pi ρ\rho σ\sigma τ\tau φ\varphi χ\chi ψ\psi ω\omega Γ\Gamma Δ\Delta Θ\Theta "
    r"Λ\Lambda Ξ\Xi Π\Pi Σ\Sigma Φ\Phi Ψ\Psi Ω\Omega"
)
_MATH = {
    "±": r"\pm",
    "×": r"\times",
    "·": r"\cdot",
    "−": "-",
    "∞": r"\infty",
    "≤": r"\leq",
    "≥": r"\geq",
    "≈": r"\approx",
    "→": r"\to",
    "↑": r"\uparrow",
    "↓": r"\downarrow",
    "√": r"\surd",
    "⁺": "^{+}",
    "²": "^{2}",
    "ᵀ": r"^{\top}",
    **{item[0]: item[1:] for item in _GREEK.split()},
}
_MATH_PATTERN = re.compile(f"([{''.join(map(re.escape, _MATH))}])(?:_(\\w+))?")


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is; Greek letters and signs become mathematics."""
    parts, end = [], 0
    text = " ".join(text.split())
    for match in _MATH_PATTERN.finditer(text):
        parts.append("".join(_SPECIAL.get(c, c) for c in text[end : match.start()]))
        below = "".join(_SPECIAL.get(c, c) for c in match[2] or "")
        below = f"_{{\\mathrm{{{below}}}}}" if len(below) > 1 else f"_{{{below}}}" if below else ""
        parts.append(f"${_MATH[match[1]]}{below}$")
        end = match.end()
    parts.append("".join(_SPECIAL.get(c, c) for c in text[end:]))
    return "".join(parts)


def latex(summary: Summary) -> str:
    """A complete ``table*`` with caption, panels and footnotes."""
    rows = [row for row in summary.facts.rows if summary.of_row(row)]
    panels = [rows[start : start + TASKS] for start in range(0, len(rows), TASKS)]
    shown = "\n\\par\\medskip\n".join(_panel(summary, panel) for panel in panels)
    notes = "".join(
        f"\\par\\footnotesize \\textsuperscript{{{mark}}}~{latex_text(sentence)}\n"
        for sentence, mark in summary.notes.items()
    )
    notes += "".join(f"\\par\\footnotesize {latex_text(note)}\n" for note in summary.facts.notes)
    return (
        "% needs \\usepackage{booktabs,graphicx}\n"
        "\\begin{table*}[t]\n\\centering\n\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n"
        f"\\caption{{{_caption(summary)}}}\n\\smallskip\n{shown}\n"
        f"\\par\\smallskip\n{notes}\\end{{table*}}\n"
    )


def _caption(summary: Summary) -> str:
    facts = summary.facts
    parts = [latex_text(facts.title.rstrip(".")) + "."]
    if summary.entries:
        over = f"Mean $\\pm$ standard deviation over {summary.counted}"
        parts.append(f"{over}; the best is in bold, the second underlined.")
    if any(cell.printed for cell in summary.cells.values()):
        parts.append(
            f"Lines in italics are as printed in {latex_text(facts.source or 'the paper')}."
        )
    return " ".join(parts)


def _panel(summary: Summary, rows: Sequence[str]) -> str:
    columns = summary.columns
    width = len(columns)
    heads, rules = [], []
    for index, row in enumerate(rows):
        heads.append(f"\\multicolumn{{{width}}}{{c}}{{{latex_text(row)}}}")
        left = 2 + index * width
        rules.append(f"\\cmidrule(lr){{{left}-{left + width - 1}}}")
    titles = [latex_text(_SHORT.get(c.name, c.heading)) for c in columns]
    lines = [
        f"\\setbox0=\\hbox{{\\begin{{tabular}}{{l{'r' * width * len(rows)}}}",
        "\\toprule",
        " & ".join(["", *heads]).strip() + r" \\",
        " ".join(rules),
        " & ".join(["Method", *titles * len(rows)]) + r" \\",
        "\\midrule",
    ]
    for solver in summary.facts.solvers:
        cells = [summary.cells.get((row, solver)) for row in rows]
        if any(cell and (cell.done or cell.undone) for cell in cells):
            numbers = [text for cell in cells for text in _ours(summary, cell, columns)]
            lines.append(" & ".join([latex_text(solver), *numbers]) + r" \\")
            name = "\\quad as printed"
        else:
            name = latex_text(solver)
        if any(cell and cell.printed for cell in cells):
            numbers = [text for cell in cells for text in _printed(cell, columns)]
            lines.append(" & ".join([f"\\textit{{{name}}}", *numbers]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", f"\\end{{tabular}}}}{_FITTED}"])


def _ours(summary: Summary, cell: Cell | None, columns: Sequence[Quantity]) -> list[str]:
    """The numbers of a cell; its footnote mark stands at the first of them."""
    texts = [_number(summary, cell, column) for column in columns]
    if cell is not None and cell.notes:
        texts[0] += f"\\textsuperscript{{{summary.marks(cell)}}}"
    return texts


def _number(summary: Summary, cell: Cell | None, column: Quantity) -> str:
    if cell is None or column.name not in cell.statistics:
        return "n/a" if cell is not None and cell.done else "--"
    mean = latex_text(column.text(cell.statistics[column.name].mean))
    rank = summary.rank(cell, column)
    mean = {1: f"\\textbf{{{mean}}}", 2: f"\\underline{{{mean}}}", None: mean}[rank]
    spread = summary.spread(cell, column)
    return mean if spread is None else f"{mean} $\\pm$ {latex_text(spread)}"


def _printed(cell: Cell | None, columns: Sequence[Quantity]) -> list[str]:
    printed = cell.printed if cell is not None else {}
    shown = [latex_text(printed[c.name]) if c.name in printed else "" for c in columns]
    return [f"\\textit{{{text}}}" if text else "" for text in shown]
