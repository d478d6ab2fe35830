"""Fréchet inception distance: the formula, its network, and what a benchmark makes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from bench_cases import config, rows_of
from torch import Tensor, nn

import diffsplit.fid
from diffsplit.bench import features
from diffsplit.bench.measures import unavailable
from diffsplit.bench.run import run
from diffsplit.bench.store import Store
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.fid import fid, frechet_distance, inception_features
from diffsplit.report.summary import Summary
from diffsplit.report.tables import markdown


class Means(nn.Module):
    """In place of Inception: the mean of each color, and of its square."""

    num_features = 6

    def forward(self, pictures: Tensor) -> Tensor:
        values = pictures.double().flatten(2) / 255
        return torch.cat([values.mean(2), values.square().mean(2)], 1)


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffsplit.fid, "_inception", Means)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was found out about networks is forgotten before and after each test."""
    cached = diffsplit.fid._inception, unavailable
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("counts", "length"), [((40, 30), 6), ((12, 20), 64)])
def test_the_distance_is_that_of_torchmetrics_with_more_vectors_than_entries_and_with_fewer(
    counts: tuple[int, int], length: int
) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(length, length, generator=generator, dtype=torch.float64)
    first, second = (
        torch.randn(n, length, generator=generator, dtype=torch.float64) for n in counts
    )
    second = second @ mixing / length**0.5 + 0.3
    network = nn.Identity()
    network.num_features = length
    reference = FrechetInceptionDistance(network)
    reference.update(first, real=True)
    reference.update(second, real=False)
    expected = float(reference.compute())
    assert float(frechet_distance(first, second)) == pytest.approx(expected, rel=1e-5)
    assert float(frechet_distance(first, first)) == pytest.approx(0, abs=1e-9)


def test_sets_that_have_no_covariance_or_other_lengths_are_refused() -> None:
    for shapes in (((1, 4), (9, 4)), ((9, 4), (9, 5))):
        with pytest.raises(InputError, match="two sets of at least two vectors"):
            frechet_distance(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.usefixtures("means")
def test_images_are_clipped_and_given_to_the_network_as_bytes() -> None:
    x = pictures(5, 0)
    assert inception_features(x).shape == (5, 6)
    wide = torch.where(x > 0.5, x + 3, x)
    torch.testing.assert_close(inception_features(wide), inception_features(wide.clamp(-1, 1)))
    assert float(fid(x, x)) == pytest.approx(0, abs=1e-6)
    assert float(fid(x, -0.5 * x)) > 1e-3
    with pytest.raises(InputError, match=r"images \(B, 3, H, W\)"):
        inception_features(x[:, :1])


def test_without_its_package_or_its_weights_a_sentence_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingDependencyError, match=r"diffsplit\[eval\]"):
        inception_features(pictures(1, 0))
    monkeypatch.setitem(sys.modules, "torch_fidelity", nn)  # anything that is there

    def no_network(feature: int) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"no network.*put its file into .*checkpoints"):
        inception_features(pictures(1, 0))
    unavailable.cache_clear()
    assert "no network" in unavailable("fid")


@pytest.mark.usefixtures("means")
def test_a_benchmark_shows_the_distance_of_all_images_of_a_cell_with_how_far_to_trust_it(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(prior, metrics=["psnr", "fid"], pictures=4), tmp_path)
    with Store.open(tmp_path) as store:
        few = Summary(store)
        cell = next(iter(few.cells.values()))
        assert "fid" not in cell.statistics
        assert cell.notes == ("No FID: it needs at least 50 images, and there are 4.",)
        monkeypatch.setattr(features, "FEWEST", 4)
        cell = next(iter(Summary(store).cells.values()))
        kept = [store.pictures(entry.key) for entry in cell.done]
        truth, answer = (
            torch.stack([one[name] for one in kept]).float() / 127.5 - 1
            for name in ("truth", "answer")
        )
        found = cell.statistics["fid"]
        assert found.mean == pytest.approx(float(fid(answer, truth)), rel=1e-4)
        assert (found.std, found.count) == (None, 4)
        assert cell.notes[0].startswith("FID of 4 images: with fewer than 2048 it is too large")
        assert f"{found.mean:.2f}" in markdown(Summary(store))


def test_a_benchmark_without_the_network_says_so_and_has_no_number(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    summary = run(config(prior, metrics=["psnr", "fid"]), tmp_path)
    assert any("FID needs torch-fidelity" in note for note in summary.notes)
    assert {entry.status for entry in rows_of(tmp_path)} == {"done"}
    with Store.open(tmp_path) as store:
        text = markdown(Summary(store))
    assert "n/a" in text
    assert "FID needs torch-fidelity" in text
