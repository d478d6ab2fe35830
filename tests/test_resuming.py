"""Runs of every kind that were interrupted and resumed end where they would have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import CODER, DENOISER, LICENSE, SHORT, TINY

from diffsplit.priors import LatentPrior, Prior, load_prior
from diffsplit.training import train
from diffsplit.training.autoencoder import AutoencoderRun
from diffsplit.training.denoiser import DenoiserRun
from diffsplit.training.distill import ConsistencyRun, distill
from diffsplit.training.latent import started_latent_config, train_latent
from diffsplit.training.run import Run

pytest.importorskip("accelerate")


@contextmanager
def interrupted(kind: type[Run], step: int) -> Iterator[None]:
    """Within, a run of this kind is interrupted at this step, and has to be."""

    class InterruptedRunError(Exception):
        pass

    def interrupt(run: Run) -> Any:
        if run.step == step and isinstance(run, kind):
            raise InterruptedRunError
        return original(run)

    original = Run.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "update", interrupt)
        with pytest.raises(InterruptedRunError):
            yield


def denoiser(pictures: Path, _: Path, out: Path, **options: Any) -> Prior:
    return train(pictures, out, replace(TINY, images=12), cpu=True, **options)


def consistency(pictures: Path, teacher: Path, out: Path, **options: Any) -> Prior:
    config = replace(SHORT, images=12)
    return distill(teacher, out, config, data=pictures, cpu=True, **options)


def latents(pictures: Path, _: Path, out: Path, resume: bool = False, **options: Any) -> Prior:
    first, second = started_latent_config(out) if resume else (CODER, DENOISER)
    assert first == CODER
    return train_latent(pictures, out, first, second, cpu=True, resume=resume, **options)


def weights(prior: Any) -> list[torch.Tensor]:
    latent = isinstance(prior, LatentPrior)
    networks = (prior.autoencoder, prior.latent.unet) if latent else (prior.unet,)
    return [p for network in networks for p in network.parameters()]


@pytest.mark.usefixtures("few_sampling_steps", "short_comparisons")
@pytest.mark.parametrize(
    ("begin", "kind", "step"),
    [
        (denoiser, DenoiserRun, 2),
        (consistency, ConsistencyRun, 2),
        (latents, AutoencoderRun, 1),
        (latents, DenoiserRun, 1),
    ],
    ids=["denoiser", "consistency", "autoencoder", "denoiser of latents"],
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    begin: Callable[..., Any],
    kind: type[Run],
    step: int,
    pictures: Path,
    trained: Path,
    trained_latents: Path,
    tmp_path: Path,
) -> None:
    source, facts = (pictures, trained), {"license": LICENSE}
    whole = load_prior(trained_latents) if begin is latents else begin(*source, tmp_path / "whole")
    with interrupted(kind, step):
        begin(*source, tmp_path / "cut", facts=facts)
    resumed = begin(*source, tmp_path / "cut", resume=True)
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(a, b)
    assert resumed.facts["license"] == LICENSE
    assert "recipe_changes" not in resumed.facts
