"""What several test files share: priors, pictures and measurements, and what training leaves.

What takes long to import is imported where it is used, so that one quick test file stays quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_networks import tiny_kl, tiny_unet

pytest.register_assert_rewrite("command_line", "matrix_cases")
from command_line import SIZE, run  # noqa: E402


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny prior with random weights: good for nothing but quick."""
    from diffsplit.priors import EDMPrior
    from diffsplit.priors.edm import build_unet

    folder = tmp_path_factory.mktemp("prior")
    EDMPrior(build_unet(SIZE, 2, (16, 32)).eval(), sigma_data=0.5).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def consistency_prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    from diffsplit.priors import ConsistencyPrior
    from diffsplit.priors.edm import build_unet

    folder = tmp_path_factory.mktemp("consistency")
    ConsistencyPrior(build_unet(SIZE, 2, (16, 32)).eval(), patch=2).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def latent_prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    from diffsplit.priors import EDMPrior, LatentPrior

    denoiser = EDMPrior(tiny_unet(4, SIZE // 2), sigma_data=1.0, patch=1)
    folder = tmp_path_factory.mktemp("latent")
    LatentPrior.from_models(tiny_kl(), denoiser).save(folder)
    return str(folder)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def measured(tmp_path: Path, cat: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "cat.safetensors"
    assert run("measure", cat, "-o", path, "--size", SIZE) == 0
    capsys.readouterr()
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of twelve pictures to train on."""
    from tiny_training import zip_of_pictures

    return zip_of_pictures(tmp_path_factory.mktemp("data") / "pictures.zip")


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training a denoiser of 16×16 images leaves after 8 images, for reading only."""
    from tiny_training import LICENSE, TINY

    from diffsplit.training import train

    out = tmp_path_factory.mktemp("denoiser") / "prior"
    train(pictures, out, replace(TINY, images=8), cpu=True, facts={"license": LICENSE})
    return out


@pytest.fixture(scope="session")
def trained_latents(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training an autoencoder and a denoiser of its latents leaves, for reading only."""
    from tiny_training import CODER, DENOISER, LICENSE

    from diffsplit.training.latent import train_latent

    out = tmp_path_factory.mktemp("latents") / "prior"
    train_latent(pictures, out, CODER, DENOISER, cpu=True, facts={"license": LICENSE})
    return out


@pytest.fixture
def few_sampling_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures in two steps: they are drawn at every checkpoint, and sampling has its own tests."""
    from diffsplit.solvers.reverse import sample

    monkeypatch.setattr(
        "diffsplit.training.denoiser.sample",
        lambda prior, count, steps, generator: sample(prior, count, 2, generator),
    )


@pytest.fixture(scope="module")
def short_comparisons() -> Iterator[None]:
    """Few images and steps to measure a student with: what it learns does not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffsplit.training.distill.HELD_OUT", 2)
        patch.setattr("diffsplit.training.distill.REFERENCE_STEPS", 6)
        yield
