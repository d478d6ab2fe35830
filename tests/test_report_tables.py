"""Tables of a run: every number against one computed by hand, and every mark where it belongs."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics

import pytest
from runs_to_report import EVIL, MemoryStore, done, rich_store, undone

from diffsplit.report.latex import latex, latex_text
from diffsplit.report.quantities import quantity, three_digits
from diffsplit.report.summary import Statistic, Summary
from diffsplit.report.tables import caption, entries_csv, markdown

PSNR, LPIPS = quantity("psnr"), quantity("lpips")


def small(**more: object) -> Summary:
    """One task, three methods on two images with two seeds, numbers as in the hand computation."""
    numbers = {"A": (20, 22, 24, 26), "B": (21, 22, 25, 28), "C": (1, 2, 3, 4)}
    entries = [
        done("×4", solver, image, seed, psnr=float(v), lpips=0.1 * v, nfe=20.0, seconds=1.5)
        for solver, values in numbers.items()
        for v, (image, seed) in zip(values, [("i", 0), ("i", 1), ("j", 0), ("j", 1)], strict=True)
    ]
    return Summary(MemoryStore(entries, {"metrics": ["psnr", "lpips"], **more}))


def test_a_cell_holds_the_mean_and_the_sample_deviation_over_images_and_seeds() -> None:
    summary = small()
    found = summary.cells["×4", "A"].statistics["psnr"]
    assert found == Statistic(23.0, math.sqrt((9 + 1 + 1 + 9) / 3), 4)
    assert found.std == pytest.approx(statistics.stdev([20, 22, 24, 26]))
    assert summary.counted == "2 images and 2 seeds"


def test_the_best_and_the_second_follow_the_direction_of_each_quantity() -> None:
    summary = small()
    ranks = {s: summary.rank(summary.cells["×4", s], PSNR) for s in "ABC"}
    assert ranks == {"A": 2, "B": 1, "C": None}
    ranks = {s: summary.rank(summary.cells["×4", s], LPIPS) for s in "ABC"}
    assert ranks == {"A": 2, "B": None, "C": 1}


def test_numbers_that_read_alike_share_their_rank() -> None:
    values = {"A": 20.001, "B": 20.004, "C": 19.0}
    summary = Summary(MemoryStore([done("r", s, "i", psnr=v) for s, v in values.items()]))
    assert [summary.rank(summary.cells["r", s], PSNR) for s in "ABC"] == [1, 1, 2]


def test_a_method_that_lacks_an_image_is_not_ranked_and_says_so() -> None:
    entries = [done("r", s, image, psnr=20.0) for s in "AB" for image in "ij"]
    entries += [done("r", "C", "i", psnr=40.0), undone("r", "C", "j", "failed", "Too dark.")]
    entries += [done("r", "D", "i", psnr=50.0)]
    summary = Summary(MemoryStore(entries, {"metrics": ["psnr"]}))
    assert [summary.rank(summary.cells["r", s], PSNR) for s in "ABCD"] == [1, 1, None, None]
    assert summary.notes == {"Failed on 1 of 2: Too dark.": "a", "1 of 2 not computed yet.": "b"}
    lines = markdown(summary).splitlines()
    assert "|  | C <sup>a</sup> | 40.00 | n/a | n/a |" in lines
    assert "<sup>a</sup> Failed on 1 of 2: Too dark.  " in lines


def test_the_markdown_table_shows_ours_beside_the_papers() -> None:
    printed = {"×4": {"A": {"psnr": "22.05 ± 1.88"}, "DPS": {"psnr": "12.37"}}}
    text = markdown(small(title="Table 1", source="Table 1 of them", printed=printed))
    assert text.splitlines()[:8] == [
        "# Table 1",
        "",
        "| task | method | PSNR (dB) ↑ | paper | LPIPS ↓ | evaluations ↓ | seconds ↓ |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: |",
        "| ×4 | A | <u>23.00</u> ± 2.58 | 22.05 ± 1.88 | <u>2.300</u> ± 0.258 | 20 | 1.50 |",
        "|  | B | **24.00** ± 3.16 | – | 2.400 ± 0.316 | 20 | 1.50 |",
        "|  | C | 2.50 ± 1.29 | – | **0.250** ± 0.129 | 20 | 1.50 |",
        "|  | DPS | – | 12.37 | – | – | – |",
    ]
    assert "Table 1 of them" in text


def test_the_latex_table_has_tasks_across_and_as_many_cells_as_columns() -> None:
    printed = {"×4": {"A": {"psnr": "22.05 ± 1.88"}, "DPS": {"psnr": "12.37"}}}
    lines = latex(small(printed=printed)).splitlines()
    assert r" & \multicolumn{4}{c}{$\times$4} \\".strip() in lines
    assert r"B & \textbf{24.00} $\pm$ 3.16 & 2.400 $\pm$ 0.316 & 20 & 1.50 \\" in lines
    assert r"\textit{\quad as printed} & \textit{22.05 $\pm$ 1.88} &  &  &  \\" in lines
    assert r"\textit{DPS} & \textit{12.37} &  &  &  \\" in lines
    assert "\\setbox0=\\hbox{\\begin{tabular}{lrrrr}" in lines


def test_latex_is_balanced_and_escapes_what_labels_hold() -> None:
    text = latex(Summary(rich_store()))
    assert "<script" not in text
    bare = re.sub(r"\\[{}$&%#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "#" not in bare
    for rows in re.findall(r"\\midrule\n(.*?)\n\\bottomrule", bare, re.DOTALL):
        assert {line.count(" & ") for line in rows.splitlines()} == {2 * (3 + 2)}
    assert set(re.findall(r"\\begin\{(.*?)\}", text)) == set(re.findall(r"\\end\{(.*?)\}", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % & σ_y = 0.05", r"50 \% \& $\sigma_{y}$ = 0.05"),
        ("a_b #1 {c}", r"a\_b \#1 \{c\}"),
        ("λ_max × 4", r"$\lambda_{\mathrm{max}}$ $\times$ 4"),
        ("\\ ~ ^", r"\textbackslash{} \textasciitilde{} \textasciicircum{}"),
        ("[16] DPS", "{[}16] DPS"),
        ("DDNM⁺ – “x”", "DDNM$^{+}$ -- ``x''"),
    ],
)
def test_latex_prints_text_as_it_is(text: str, expected: str) -> None:
    assert latex_text(text) == expected


def test_markdown_shows_labels_as_they_are() -> None:
    text = markdown(Summary(rich_store()))
    assert "<script" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_the_csv_holds_every_entry_with_every_value_in_full() -> None:
    store = rich_store()
    lines = list(csv.DictReader(io.StringIO(entries_csv(Summary(store)))))
    assert len(lines) == len(store.entries())
    for line, entry in zip(lines, store.entries(), strict=True):
        about = (line["row"], line["solver"], line["image"], int(line["seed"]), line["status"])
        assert about == (entry.row, entry.solver, entry.image, entry.seed, entry.status)
        assert line["reason"] == entry.reason
        numbers = {k: v for k, v in list(line.items())[7:] if v}
        assert {name: float(text) for name, text in numbers.items()} == entry.values
    assert any(line["row"] == EVIL for line in lines)


def test_what_a_method_does_not_give_is_told_from_what_it_could_not_do() -> None:
    entries = [done("r", "A", "i", psnr=20.0), undone("r", "B", "i", "missing", "No such solver.")]
    text = markdown(Summary(MemoryStore(entries, {"metrics": ["psnr", "lpips"]})))
    assert "| r | A | 20.00 | n/a | n/a | n/a |" in text
    assert "|  | B <sup>a</sup> | – | – | – | – |" in text
    assert "<sup>a</sup> Not run: No such solver." in text


def test_what_could_not_be_computed_is_explained_below_the_table() -> None:
    sentence = "LPIPS needs weights_1 that are not here."
    summary = small(notes=[sentence])
    assert sentence in markdown(summary)
    assert latex_text(sentence) in latex(summary)


def test_costs_are_ranked_only_where_the_paper_has_them_and_have_no_deviation() -> None:
    entries = [
        done("r", s, i, psnr=20.0, seconds=t + d) for s, t in (("A", 1.0), ("B", 2.0))
        for i, d in (("i", 0.0), ("j", 0.5))
    ]  # fmt: skip
    plain = markdown(Summary(MemoryStore(entries, {"metrics": ["seconds"]})))
    assert "| r | A | 1.25 |" in plain
    printed = {"r": {"A": {"seconds": "7.5"}}}
    ranked = markdown(Summary(MemoryStore(entries, {"metrics": ["seconds"], "printed": printed})))
    assert "| r | A | **1.25** | 7.5 |" in ranked


def test_an_empty_run_has_an_empty_table() -> None:
    summary = Summary(MemoryStore([]))
    assert markdown(summary).startswith("# Results")
    assert caption(summary) == ""
    assert latex(summary).count("tabular") == 0


def test_nan_is_left_out_and_infinity_is_shown() -> None:
    assert Statistic.of([1.0, math.nan, 3.0]) == Statistic(2.0, math.sqrt(2), 2)
    assert Statistic.of([math.nan]) is None
    assert Statistic.of([math.inf, 1.0]) == Statistic(math.inf, None, 2)
    assert PSNR.text(math.inf) == "∞"
    assert PSNR.text(-1.234) == "−1.23"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (20, "20"), (11555, "11555"), (1.5, "1.50"), (208.4, "208"), (0.01234, "0.0123")],
)
def test_costs_have_three_digits_and_counts_are_whole(value: float, text: str) -> None:
    assert three_digits(value) == text
