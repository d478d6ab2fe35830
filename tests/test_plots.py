from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffsplit import Problem, plots
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.errors import InputError
from diffsplit.operators import ChannelMix, Downsample, GaussianMatrix, LinearOperator, PixelMask
from diffsplit.plots import lettering

SHAPE = (3, 8, 8)


def test_a_grid_shows_each_image_in_its_place() -> None:
    batch = torch.linspace(-1, 0.5, 5).view(-1, 1, 1, 1).expand(-1, 3, 4, 6)
    grid = plots.image_grid(batch, columns=3, gap=2)
    assert grid.shape == (3, 4 + 2 + 4, 6 * 3 + 2 * 2)
    assert torch.equal(grid[:, 6:, 8:14], batch[4])
    assert (grid[:, 4:6] == 1).all()


def test_a_comparison_shows_each_image_enlarged_in_its_row_and_column() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [(f"row {r}", torch.rand(3, 3, 5, 5, generator=generator) * 2 - 1) for r in range(2)]
    figure = plots.comparison(rows, scale=2, gap=4, label_width=50)
    assert figure.shape == (3, 2 * 14 - 4, 50 + 3 * 14 - 4)
    shown = figure[:, 14:24, 50 + 14 : 50 + 24][:, ::2, ::2]
    torch.testing.assert_close(shown, rows[1][1][1], atol=1 / 255 + 1e-6, rtol=0)
    assert figure[:, :, :50].min() < 0, "no label was drawn"


def test_panels_stand_side_by_side_over_their_captions() -> None:
    image = torch.zeros(3, 40, 40)
    figure = plots.side_by_side([("a", image), ("b", image - 1)], scale=3, gap=6)
    assert figure.shape == (3, 40 * 3 + 22, 2 * 120 + 6)
    assert (figure[:, :120, 126:] == -1).all()
    assert figure[:, 120:].min() < 0, "no caption was drawn"


A, B = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 5, 5)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.image_grid(A[0], 1),
        lambda: plots.image_grid(A[:0], 1),
        lambda: plots.image_grid(A, 0),
        lambda: plots.comparison([("a", A), ("b", B)]),
        lambda: plots.comparison([("a", A), ("b", A.expand(2, -1, -1, -1))]),
        lambda: plots.side_by_side([("a", A[0]), ("b", B[0])]),
        lambda: plots.std_map(A - 1),
        lambda: plots.std_map(A[0]),
        lambda: plots.std_figure(None),
        lambda: plots.stretch(A[:0]),
        lambda: plots.side_by_side([("a", A)]),
        lambda: plots.comparison([("a", A.expand(2, -1, -1, -1).numpy())]),
        lambda: plots.std_figure(A * torch.nan),
        lambda: plots.std_figure(A, top=0.0),
        lambda: plots.trace_figure({}),
        lambda: plots.trace_figure(A),
        lambda: plots.measurement_pictures(A, A),
    ],
)
def test_figures_of_nothing_of_two_sizes_or_of_no_deviations_are_refused(
    draw: Callable[[], object],
) -> None:
    with pytest.raises(InputError):
        draw()


@pytest.mark.parametrize("factor", [1.0, -0.25])
def test_in_pictures_of_measured_pixels_the_missing_ones_are_gray(factor: float) -> None:
    x = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    operator = factor * PixelMask.box(SHAPE, 2, 2, 4, 4)
    label, shown = plots.measurement_pictures(
        Problem(operator, GaussianNoise(0.1)), operator.apply(x)
    )
    assert label == "measurement"
    assert bool((shown[..., 2:6, 2:6] == 0).all())
    torch.testing.assert_close(shown[..., :2, :], x[..., :2, :])


def test_measured_images_that_are_smaller_are_shown_enlarged() -> None:
    x = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    problem = Problem(Downsample(SHAPE, 4), GaussianNoise(0.1))
    y = problem.operator.apply(x)
    label, shown = plots.measurement_pictures(problem, y)
    assert label == "measurement"
    assert torch.equal(shown, y.repeat_interleave(4, 2).repeat_interleave(4, 3))


@pytest.mark.parametrize(
    "operator",
    [GaussianMatrix(SHAPE, rows=9, seed=0), ChannelMix(SHAPE, torch.ones(2, 3))],
    ids=["random sums", "two channels"],
)
def test_measurements_that_are_no_picture_are_shown_back_projected(
    operator: LinearOperator,
) -> None:
    problem = Problem(operator, OneBit(0.5))
    y = torch.ones(2, *operator.shape_out)
    label, shown = plots.measurement_pictures(problem, y)
    assert label == "A^T y"
    assert torch.equal(shown, plots.stretch(problem.backprojection(y)))


def test_a_std_map_is_black_where_certain_and_white_at_the_top() -> None:
    std = torch.zeros(1, 3, 4, 4)
    std[:, :, 0, 0] = 0.2
    shown = plots.std_map(std, top=0.2)
    assert shown.shape == (1, 3, 4, 4)
    torch.testing.assert_close(shown[0, :, 0, 0], torch.ones(3))
    assert (shown[0, :, 1:] == -1).all()


def test_a_std_figure_shows_gray_levels_in_proportion_beside_a_bar_of_all_of_them() -> None:
    std = torch.linspace(0, 64 / 127.5, 64).view(1, 8, 8).expand(3, -1, -1)  # 0 to 64 gray levels
    figure = plots.std_figure(std, top=128, scale=6)
    pad = (figure.shape[1] - 48) // 2
    shown = figure[:, pad : pad + 48, :48][:, ::6, ::6]
    torch.testing.assert_close(shown, std * 127.5 / 64 - 1, atol=1.1 / 255, rtol=0)
    bar = figure[0, pad + 1 : pad + 47, 48 + 8 + 5]
    assert (bar.diff() < 0).all()
    assert bar[0] > 0.9
    assert bar[-1] < -0.9
    assert (figure[:, :, 48 + 8 + 14 :] < 0).any(), "no label was drawn"
    assert plots.std_figure(std.expand(2, 3, 8, 8), top=128, scale=6).shape[2] > figure.shape[2]
    assert plots.std_figure(torch.zeros(1, 4, 4)).isfinite().all()


def test_stretch_fills_the_range_of_each_image_and_keeps_zero_and_signs() -> None:
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1e-3, 50.0]).view(-1, 1, 1, 1)
    shown = plots.stretch(x)
    assert torch.equal(shown.sign(), x.sign())
    assert shown.abs().flatten(1).amax(1).tolist() == [1.0, 1.0]
    assert (shown.abs().flatten(1) == 1).float().mean() < 0.01
    assert torch.equal(plots.stretch(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 3, 4, 4))


def test_a_trace_is_drawn_and_written_with_one_panel_a_column(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    steps = torch.linspace(1, 0, 5)[:, None].expand(-1, 2)
    one = plots.trace_figure({"sigma": steps})
    two = plots.trace_figure({"sigma": steps, "misfit": steps + 1}, tmp_path / "trace.png")
    assert two.shape[0] == 3
    assert two.shape[1] > one.shape[1]
    assert two.min() < 0 < two.max() <= 1
    with Image.open(tmp_path / "trace.png") as written:
        assert written.size == (two.shape[2], two.shape[1])
    with pytest.raises(InputError, match="xyz"):
        plots.trace_figure({"sigma": steps}, tmp_path / "trace.xyz")


def test_signals_are_drawn_one_panel_each_with_a_band_and_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    x = torch.linspace(-1, 1, 50).expand(2, -1)
    plain = plots.signal_figure([("truth", x[0]), ("answer", -x[0])])
    banded = plots.signal_figure([("truth", x[0]), ("answer", -x[0])], (x[0] - 1, x[0] + 1))
    assert not torch.equal(plain, banded[:, : plain.shape[1], : plain.shape[2]])
    axis = torch.linspace(400, 700, 50)
    two = plots.signal_figure([("truth", x)], axis=axis, path=tmp_path / "x.png")
    assert two.shape[1] > plain.shape[1]
    with Image.open(tmp_path / "x.png") as written:
        assert written.size == (two.shape[2], two.shape[1])
    for curves, settings in (
        ([], {}),
        ([("a", x), ("b", x[0])], {}),
        ([("a", torch.zeros(1, 3, 4, 4))], {}),
        ([("a", x)], {"axis": axis[1:]}),
        ([("a", x)], {"interval": (x[:, 1:], x)}),
    ):
        with pytest.raises(InputError):
            plots.signal_figure(curves, **settings)


def test_pictures_of_measured_signals_are_refused_and_curves_recommended() -> None:
    problem = Problem(GaussianMatrix((9,), rows=4, seed=0), OneBit(0.5))
    with pytest.raises(InputError, match="signal_figure"):
        plots.measurement_pictures(problem, torch.ones(2, 4))


def test_a_table_has_a_line_a_row_and_a_cell_for_every_column() -> None:
    rows = [{"method": "DiffEP", "PSNR": 22.216}, {"method": "a|b", "PSNR": None, "M": 768}]
    assert plots.markdown_table(rows).splitlines() == [
        "| method | PSNR | M |",
        "| :--- | ---: | ---: |",
        "| DiffEP | 22.22 | – |",
        "| a\\|b | – | 768 |",
    ]


def test_labels_with_greek_letters_are_drawn_and_not_replaced_by_boxes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = torch.zeros(3, 8, 8)

    def drawn(label: str) -> torch.Tensor:
        return plots.side_by_side([(label, image)], scale=10)

    if lettering.readable("σ") == "σ":
        assert not torch.equal(drawn("σ σ σ"), drawn("Π Π Π"))  # two boxes would be alike
    monkeypatch.setattr(lettering, "find_spec", lambda name: None)
    for cached in (lettering._with_greek, lettering.font):
        cached.cache_clear()
    try:
        assert lettering.readable("×4, σ 0.05") == "x4, sigma 0.05"
        assert torch.equal(drawn("×4"), drawn("x4"))
    finally:
        for cached in (lettering._with_greek, lettering.font):
            cached.cache_clear()
