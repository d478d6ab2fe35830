"""The page of a run: well-formed, complete without its script, and closed to the network."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from runs_to_report import EVIL, IMAGES, ROWS, MemoryStore, done, rich_store

from diffsplit.report import page as page_module
from diffsplit.report.page import page
from diffsplit.report.paired import comparisons
from diffsplit.report.summary import Summary

VOID = {"meta", "img", "input", "br", "link", "hr"}
CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Document(HTMLParser):
    """The elements of a page, with a check that each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing that is open"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self.open), " ".join(data.split())))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def reading(self) -> str:
        """What a reader sees without a script, in its order."""
        hidden = {"script", "style", "title"}
        return " ".join(text for where, text in self.texts if not hidden & set(where))


@pytest.fixture(scope="module")
def text() -> str:
    """The page of the rich run without its plots, which take long to draw."""
    store = rich_store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "drawings", lambda summary: [])
        return page(store, Summary(store))


@pytest.fixture(scope="module")
def document(text: str) -> Document:
    return Document(text)


def test_every_number_of_the_table_stands_in_the_page_in_the_order_of_the_table(
    document: Document,
) -> None:
    summary = Summary(rich_store())
    cells = [data for where, data in document.texts if "tbody" in where and "tr" in where]
    expected = []
    for cell in summary.cells.values():
        expected.append(cell.solver)
        for column in summary.columns:
            if column.name in cell.statistics:
                expected.append(column.text(cell.statistics[column.name].mean))
            if column.name in cell.printed:
                expected.append(cell.printed[column.name])
    remaining = iter(cells)
    for wanted in expected:
        assert wanted in remaining, f"{wanted} is missing, or in another place"


def test_the_best_is_bold_and_the_second_underlined(document: Document) -> None:
    summary = Summary(rich_store())
    ranks = [summary.rank(c, m) for c in summary.cells.values() for m in summary.columns]
    titles = [attributes.get("title") for tag in "bu" for attributes in document.all(tag)]
    assert titles.count("best") == ranks.count(1) > 0
    assert titles.count("second") == ranks.count(2) > 0


def test_what_comes_from_the_data_is_escaped(text: str, document: Document) -> None:
    assert "<script>alert" not in text
    assert len(document.all("script")) == 1
    assert EVIL in document.reading()
    assert "<grid>" in document.reading()


def test_the_page_loads_nothing_and_lets_nothing_else_run(text: str, document: Document) -> None:
    for _, attributes in document.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), value
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert document.all("link") == []
    assert not re.search(r"url\(|@import|https?://", re.sub(r'"data:[^"]*"', "", text))
    (policy,) = (
        attributes["content"] or ""
        for attributes in document.all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_every_part_is_read_in_order_without_the_script(document: Document) -> None:
    reading = document.reading()
    summary = Summary(rich_store())
    parts = ["Skip to", "Two tasks", "Results", "Mean ± standard deviation", ROWS[0], "LaTeX"]
    parts += ["Paired comparison", "Pictures", IMAGES[0], "The run", "cats-64", "17 done"]
    start = 0
    for part in parts:
        start = reading.index(part, start)
    for sentence in summary.notes:
        assert sentence in reading
    hidden = [a for _, a in document.elements if "hidden" in a]
    assert all(a.get("id") == "theme" or a.get("class") in ("tools", "copy") for a in hidden), (
        "only what needs the script is hidden without it"
    )


def test_links_within_the_page_lead_somewhere_and_names_are_unique(document: Document) -> None:
    names = [a["id"] for _, a in document.elements if a.get("id")]
    assert len(set(names)) == len(names)
    inner = [a["href"] for a in document.all("a") if (a["href"] or "").startswith("#")]
    assert {(link or "")[1:] for link in inner} <= set(names)
    pointing = ("aria-labelledby", "data-truth", "data-copy")
    for _, attributes in document.elements:
        for name in pointing:
            assert attributes.get(name) in (None, *names)


def test_people_who_do_not_see_or_use_a_mouse_have_names_for_everything(
    document: Document,
) -> None:
    assert document.all("html")[0]["lang"] == "en"
    pictures = document.all("img")
    assert all("alt" in picture for picture in pictures)
    assert sum(not picture["alt"] for picture in pictures) == 2  # of the viewer, empty until used
    for head in document.all("th"):
        assert head.get("scope") in ("col", "row", "rowgroup")
    for region in (a for a in document.all("div") if a.get("role") == "region"):
        assert region["tabindex"] == "0"
        assert region["aria-label"]
    labelled = [where for where, _ in document.texts if where[-1] == "label"]
    assert len(labelled) == 2
    headings = [int(tag[1]) for tag, _ in document.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


def _luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_stands_out_from_its_ground_in_light_and_in_dark(text: str) -> None:
    """At least 4.5 to 1, as WCAG 2 asks for (level AA)."""
    palettes = [
        dict(re.findall(r"--(\w+): (#\w{6})", rule)) for rule in re.findall("{[^{}]*}", text)
    ]
    palettes = [palette for palette in palettes if "ground" in palette]
    assert len(palettes) == 3
    assert palettes[1] == palettes[2]
    for palette in palettes:
        for ink in ("ink", "soft", "link"):
            for ground in ("ground", "raised"):
                pair = sorted(_luminance(palette[name]) for name in (ink, ground))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ink, ground)


def test_every_pair_of_methods_is_compared_in_the_page(document: Document) -> None:
    found = comparisons(Summary(rich_store()))
    reading = document.reading()
    for one in found:
        assert one.quantity.text(abs(one.mean)) in reading
    assert reading.count("first better") == 2 * 3  # tasks, quantities


def test_a_page_of_large_pictures_shows_fewer_of_them_but_one_of_each_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = rich_store()
    monkeypatch.setattr(page_module, "drawings", lambda summary: [])
    counts = []
    for budget in (10**9, 4000, 1):
        monkeypatch.setattr(page_module, "BUDGET", budget)
        shown = Document(page(store, Summary(store), pictures=3))
        counts.append(sum((a.get("id") or "").startswith("truth-") for a in shown.all("img")))
    assert counts[0] == 6
    assert counts[0] > counts[1] >= counts[2] == 2


def test_an_empty_run_and_one_without_pictures_have_a_page() -> None:
    for store in (MemoryStore([]), MemoryStore([done("r", "A", "i", ssim=0.5)])):
        shown = Document(page(store, Summary(store)))
        assert shown.all("dialog") == []
        assert ("no results yet" in shown.reading()) == (not store.entries())


def test_without_matplotlib_the_page_says_so_in_place_of_the_plots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    store = rich_store()
    assert "Figures need matplotlib" in Document(page(store, Summary(store))).reading()


def test_plots_are_in_the_page_for_light_and_for_dark() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    store = MemoryStore([done("r", "A", image, psnr=20.0, seconds=1.0) for image in "ij"])
    shown = Document(page(store, Summary(store)))
    kinds = [picture.get("class") for picture in shown.all("img")]
    assert kinds == ["light", "dark"]


def test_the_script_is_sound(text: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on PATH, which checks the syntax of scripts")
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    (tmp_path / "page.js").write_text(script, "utf-8")
    subprocess.run([node, "--check", str(tmp_path / "page.js")], check=True)


def test_a_browser_shows_the_table_and_runs_the_script(text: str, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, CHROMES)), None)
    if browser is None:
        pytest.skip(f"no browser is on PATH: {', '.join(CHROMES)}")
    file = tmp_path / "page.html"
    file.write_text(text, "utf-8")
    options = ["--headless", "--disable-gpu", "--no-sandbox", "--enable-logging=stderr"]
    run = subprocess.run(
        [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert 'id="results-table"' in run.stdout
    assert 'title="Sort by this column' in run.stdout, "the script did not run"
    assert not re.search(r"CONSOLE.*(Error|Refused|Uncaught)", run.stderr), run.stderr
