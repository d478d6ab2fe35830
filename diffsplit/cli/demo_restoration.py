"""The restoration tasks of ``diffsplit demo``: a linear baseline, DCDP in its versions, DiffEP."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from diffsplit.cli.gallery import Gallery
from diffsplit.cli.methods import IMAGES, Method, PurifierName, SolverName
from diffsplit.cli.restoration import Restoration

if TYPE_CHECKING:
    from diffsplit.priors.base import Prior

__all__ = ["default_sigma", "restore"]

SIGMA = 0.05

VERSIONS = {
    "DCDP (V1)": Method(SolverName.dcdp, purifier=PurifierName.ddim),
    "DCDP (V2)": Method(SolverName.dcdp, purifier=PurifierName.tweedie),
    "DCDP (CM)": Method(SolverName.dcdp, purifier=PurifierName.consistency),
    "DCDP, latent": Method(SolverName.dcdp_latent),
}


def default_sigma(task: Restoration) -> float | None:
    """The noise of the demo; None for that of `diffsplit measure`.

    Blurs get some, since without any a linear filter undoes them.
    """
    return SIGMA if task in (Restoration.gaussian_deblur, Restoration.motion_deblur) else None


def restore(gallery: Gallery, task: Restoration, samples: int) -> list[str]:
    """Fill the gallery; returns the methods left out, for which no bundled prior fits."""
    from diffsplit.solvers.linear.baselines import baseline
    from diffsplit.plots.figures import measurement_pictures
    from diffsplit.solvers import LatentDCDP

    gallery.show("truth", gallery.truth)
    gallery.show(*measurement_pictures(gallery.problem, gallery.y))
    start = time.perf_counter()
    name, estimate = baseline(gallery.problem, gallery.y)
    gallery.show(name, estimate)
    gallery.note(name, estimate, 0, time.perf_counter() - start)
    missing = []
    for label, method in VERSIONS.items():
        prior = _prior_for(method, gallery)
        if prior is None:
            missing.append(label)
        else:
            solver = method.solver(gallery.problem, task.value)
            if isinstance(solver, LatentDCDP):
                # The other approach goes a thousand times through the decoder and back.
                solver = replace(solver, consistency="pixel")
            gallery.recover(solver, label, prior)
    gallery.recover_samples(samples)
    return missing


def _prior_for(method: Method, gallery: Gallery) -> Prior | None:
    """The demo's own prior, or the bundled one of another kind if it fits these images."""
    from diffsplit.priors import bundled_priors, load_prior

    if method.needs == IMAGES:
        return gallery.prior
    name = method.default_prior
    if name not in bundled_priors():
        return None
    prior = load_prior(name, device=gallery.y.device)
    return prior if tuple(prior.shape) == tuple(gallery.prior.shape) else None
