"""Figures and pictures of a run: what is drawn is what the run has."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs_to_report import IMAGES, ROWS, SOLVERS, MemoryStore, done, rich_store

from diffsplit.bench.compute import WHITE_STD
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.images import to_uint8
from diffsplit.plots.grids import caption_width
from diffsplit.report.figures import as_svg, drawings, write
from diffsplit.report.gallery import Answer, figure, gallery, overview, png
from diffsplit.report.summary import Summary


def test_there_are_figures_of_quality_against_cost_and_of_calibration() -> None:
    names = [drawing.name for drawing in drawings(Summary(rich_store()))]
    assert names == ["psnr-seconds", "psnr-nfe", "lpips-seconds", "lpips-nfe", "calibration"]


def test_there_is_no_figure_of_what_a_run_does_not_have() -> None:
    entries = [done("r", "A", "i", psnr=20.0, seconds=1.0)]
    assert [d.name for d in drawings(Summary(MemoryStore(entries)))] == ["psnr-seconds"]
    assert drawings(Summary(MemoryStore([]))) == []
    unbounded = MemoryStore([done("r", "A", "i", psnr=float("inf"), seconds=1.0)])
    assert drawings(Summary(unbounded)) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("evaluations", [(0.0,), (0.0, 20.0), (5.0, 20.0)])
def test_costs_that_are_zero_are_drawn_as_well(evaluations: tuple[float, ...]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    entries = [done("r", f"{n}", "i", psnr=20.0, nfe=n, seconds=1.0) for n in evaluations]
    by_name = {drawing.name: drawing for drawing in drawings(Summary(MemoryStore(entries)))}
    assert by_name["psnr-nfe"].draw().axes[0].get_xlim()[0] <= min(evaluations)


@pytest.mark.parametrize("index", [1, 4], ids=["scatter", "calibration"])
def test_a_figure_is_the_same_svg_each_time_and_names_every_method_and_task(index: int) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    drawing = drawings(Summary(rich_store()))[index]
    light, dark = as_svg(drawing)
    assert (light, dark) == as_svg(drawing)
    texts = {node.text for node in ElementTree.fromstring(light).iter() if node.text}
    assert ROWS[0] in texts
    assert "DiffEP" in texts
    assert ("Bicubic" in texts) == (index == 1)
    assert light != dark
    assert b"#1a1a1a" not in dark


def test_a_figure_is_written_for_papers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    drawing = drawings(Summary(rich_store()))[0]
    write(drawing, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match="no such folder"):
        write(drawing, tmp_path / "none" / "a.pdf")


def test_without_matplotlib_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        as_svg(drawings(Summary(rich_store()))[0])


def test_the_gallery_has_the_first_images_of_each_task_with_every_answer() -> None:
    store = rich_store()
    shown = gallery(store, Summary(store), 2)
    assert [(one.row, one.image) for one in shown] == [(r, i) for r in ROWS for i in IMAGES[:2]]
    first = shown[0]
    assert [answer.entry.solver for answer in first.answers] == list(SOLVERS[:3])
    pictures = store.pictures(first.answers[1].entry.key)
    assert first.truth is not None
    assert torch.equal(first.truth, pictures["truth"])
    assert torch.equal(first.answers[1].picture, pictures["answer"])


def test_maps_show_error_and_deviation_in_gray_levels_on_one_scale() -> None:
    truth = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    near, far, std = truth.clone(), truth.clone(), torch.zeros(1, 8, 8, dtype=torch.uint8)
    near[:, :, :4] += 10
    far[:, :, :4] += 20
    std[:, :, :4] = 20  # of 255, which are WHITE_STD
    entries = [done("r", s, "i", psnr=20.0) for s in ("near", "far")]
    kept = [{"truth": truth, "answer": near, "std": std}, {"truth": truth, "answer": far}]
    store = MemoryStore(entries, {}, {e.key: p for e, p in zip(entries, kept, strict=True)})
    (one,) = gallery(store, Summary(store), 1)
    assert one.top == pytest.approx(10, rel=1e-4)
    first, second = one.answers
    assert first.error is not None
    assert first.error.shape == (1, 8, 8)
    assert first.error[0, 0].tolist() == [255] * 4 + [0] * 4
    assert second.error is not None
    assert second.error[0, 0].tolist() == [255] * 4 + [0] * 4
    assert second.std is None
    assert first.std is not None
    levels = 20 / 255 * WHITE_STD * 127.5
    assert first.std[0, 0, 0].item() == pytest.approx(255 * levels / 10, abs=1)
    assert first.std[0, 0, 7].item() == 0


def test_images_without_pictures_and_runs_without_any_are_passed_over() -> None:
    store = MemoryStore([done("r", "A", image, psnr=20.0) for image in "ij"])
    assert gallery(store, Summary(store), 4) == []


def test_the_figure_of_a_task_has_a_row_for_each_picture_and_map() -> None:
    store = rich_store()
    shown = [one for one in gallery(store, Summary(store), 3) if one.row == ROWS[0]]
    sheet = figure(shown, SOLVERS)
    down = 8 * 16 + 4
    assert sheet.shape == (3, (2 + 3 * 2 + 1) * down - 4, 150 + 3 * down - 4)
    plain = figure(shown, SOLVERS, maps=False)
    assert plain.shape == (3, (2 + 3) * down - 4, 150 + 3 * down - 4)


def test_the_overview_has_a_line_for_each_task_with_every_answer() -> None:
    store = rich_store()
    shown = gallery(store, Summary(store), 1)
    sheet = overview(shown)
    line = 22 + 8 * 16 + 22
    labels = [
        f"{a.entry.solver} {a.entry.values['psnr']:.1f}" for one in shown for a in one.answers
    ]
    cell = max(8 * 16, *map(caption_width, labels)) + 6
    assert sheet.shape[:2] == (3, 2 * line)
    for row, one in enumerate(shown):
        for place, picture in enumerate([one.truth, one.measurement, *one.answers]):
            expected = picture.picture if isinstance(picture, Answer) else picture
            corner = row * line, place * cell + (cell - 6) // 2 - 8 * 16 // 2
            found = sheet[:, corner[0] + 22 + 8, corner[1] + 8]
            assert to_uint8(found).tolist() == expected.expand(3, -1, -1)[:, 0, 0].tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_survives_as_png(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (channels, 5, 7), generator=generator, dtype=torch.uint8)
    with Image.open(io.BytesIO(png(picture))) as read:
        assert read.mode == ("L" if channels == 1 else "RGB")
        values = torch.tensor(list(read.tobytes()), dtype=torch.uint8).view(5, 7, channels)
    assert torch.equal(values.permute(2, 0, 1), picture)
