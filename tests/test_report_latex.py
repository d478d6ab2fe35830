"""The tables in LaTeX are compiled, as a paper would."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from runs_to_report import MemoryStore, done, rich_store

from diffsplit.bench.shipped import find_config, names_of_configs
from diffsplit.report.latex import latex
from diffsplit.report.summary import Summary

PAPER = r"""\documentclass[twocolumn]{article}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


def filled(name: str) -> Summary:
    """A table of the papers in which every method has numbers, ours and the paper's."""
    config = find_config(name)
    numbers = {"psnr": 21.35, "ssim": 0.512, "lpips": 0.4, "nfe": 1000.0, "seconds": 12.5}
    entries = [
        done(row.label, method.label, image, **{k: v * gain for k, v in numbers.items()})
        for row in config.rows
        for method in config.solvers
        if method.serves(row.label)
        for image, gain in (("i", 1.0), ("j", 1.1))
    ]
    return Summary(
        MemoryStore(entries, config.model_dump(mode="json") | {"rows": [], "solvers": []})
    )


def test_the_tables_of_both_papers_and_the_oddest_labels_compile_and_fit_the_page(
    tmp_path: Path,
) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("pdflatex is not on PATH, which compiles the tables")
    summaries = [Summary(rich_store()), *map(filled, names_of_configs())]
    text = "\n\\clearpage\n".join(map(latex, summaries))
    (tmp_path / "paper.tex").write_text(PAPER % text, "utf-8")
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout[-2000:]
    log = (tmp_path / "paper.log").read_text("utf-8", "replace")
    assert "Overfull" not in log, "a table is wider than the page"
    assert f"({len(summaries)} pages" in log, "each table fits one page"
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
