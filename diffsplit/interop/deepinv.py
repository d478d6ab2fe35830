"""deepinv: its physics as our problems, our solvers as its reconstructors, denoisers both ways.

Images are on [0, 1] in deepinv and on [-1, 1] here; `unit_range` converts. Source of the
interface: Tachella et al. 2025, "DeepInverse"; version 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffsplit.channels import GaussianNoise
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.interop import unit_range
from diffsplit.interop.recognition import agrees, recognized
from diffsplit.noise import Generators
from diffsplit.operators import LinearOperator, PixelMask, from_function, from_matrix
from diffsplit.operators.checks import check_batch
from diffsplit.priors import Denoiser, ErrorCurve, Prior
from diffsplit.priors.functional import CallablePrior
from diffsplit.problem import Problem
from diffsplit.solvers import Recovery, Solver

try:
    import deepinv
except (ImportError, RuntimeError) as error:  # a torchvision of another PyTorch fails so
    raise MissingDependencyError(
        f"deepinv cannot be imported ({error}); install it with pip install 'diffsplit[deepinv]', "
        "and a torchvision that fits PyTorch."
    ) from error

__all__ = [
    "DeepinvProblem",
    "denoiser_to_deepinv",
    "from_deepinv",
    "prior_from_deepinv",
    "to_deepinv",
]


@dataclass(frozen=True)
class DeepinvProblem(Problem):
    """A problem of images on [-1, 1] that was made from a physics of images on [0, 1].

    Attributes:
        ones: A 1 ``(1, *operator.shape_out)``, what A gives for an image of ones.
        mask: the entries of a deepinv measurement that are measurements; None for all of them.
    """

    ones: Tensor = field(compare=False)
    mask: PixelMask | None = field(compare=False)

    def measurements(self, y: Tensor) -> Tensor:
        """What the physics measured, as measurements of the image on [-1, 1].

        Args:
            y: ``physics(u)`` for images u on [0, 1].

        Returns:
            ``(B, *operator.shape_out)``, for a solver.

        Raises:
            InputError: ``y`` is not of the shape that the physics gives.
        """
        shape = self.operator.shape_out if self.mask is None else self.mask.shape_in
        check_batch(y, shape, "this physics gives measurements")
        kept = y if self.mask is None else self.mask.apply(y)
        return unit_range.measurements_from_unit(kept, self.ones.to(kept))


def from_deepinv(physics: Any, shape: Sequence[int] | None = None) -> DeepinvProblem:
    """The problem of a linear physics of deepinv with Gaussian noise or none.

    A mask, a blur, a reduction or a Gaussian matrix becomes the operator of ours that it equals;
    everything else is applied as deepinv does. Entries of its measurements that are 0 whatever the
    image are left out. The physics is taken as it is now.

    Args:
        physics: a ``deepinv.physics.LinearPhysics`` whose noise model is ``GaussianNoise`` or
            ``ZeroNoise``.
        shape: ``(C, H, W)`` of an image, where the physics does not know it.

    Returns:
        A problem; `DeepinvProblem.measurements` converts what the physics measured. Its noise level
        is twice that of the physics.

    Raises:
        InputError: the physics is not linear, has another noise model or a sensor that is not the
            identity, gives no tensor of reals, or does not know the shape of its images.
    """
    if not isinstance(physics, deepinv.physics.LinearPhysics):
        raise InputError(
            f"a linear physics of deepinv was expected, not {type(physics).__name__}; only linear "
            "ones become a problem here."
        )
    if isinstance(physics, deepinv.physics.StackedPhysics):
        raise InputError(
            "a stacked physics gives a list of measurements; make a problem of each part, or join "
            "them with diffsplit.operators.Stacked."
        )
    channel = GaussianNoise(unit_range.SCALE * _noise_level(physics.noise_model))
    _check_sensor(physics)
    shape = _image_shape(physics) if shape is None else tuple(shape)
    operator, mask = _operator(physics, shape)
    ones = operator.apply(torch.ones(1, *shape, device=_device(physics)))
    return DeepinvProblem(operator, channel, ones, mask)


def _noise_level(noise: Any) -> float:
    """σ on [0, 1] of a noise model of deepinv."""
    if isinstance(noise, deepinv.physics.ZeroNoise):
        return 0.0
    if not isinstance(noise, deepinv.physics.GaussianNoise):
        raise InputError(
            f"the noise model {type(noise).__name__} has no counterpart here; GaussianNoise and "
            "ZeroNoise do."
        )
    levels = torch.as_tensor(noise.sigma).flatten()
    if not bool((levels == levels[0]).all()):
        raise InputError(
            "the noise level differs from image to image; recover images of one level at a time."
        )
    return float(levels[0])


def _check_sensor(physics: Any) -> None:
    probe = torch.linspace(-3, 3, 61, device=_device(physics)).view(1, 1, 1, -1)
    try:
        same = torch.equal(physics.sensor_model(probe), probe)
    except Exception:  # a user's function may fail in any way
        same = False
    if not same:
        raise InputError(
            "the sensor model of the physics is not the identity; build the problem with a channel "
            "of diffsplit, such as Quantized or OneBit."
        )


def _image_shape(physics: Any) -> tuple[int, ...]:
    for name in ("img_size", "imsize"):
        known = getattr(physics, name, None)
        if known is not None:
            return tuple(int(side) for side in known)
    raise InputError(
        f"the physics {type(physics).__name__} does not say how large its images are; give "
        "shape=(C, H, W)."
    )


def _device(physics: nn.Module) -> torch.device:
    tensors = [*physics.parameters(), *physics.buffers()]
    return next((t.device for t in tensors if t.device.type != "cpu"), torch.device("cpu"))


def _operator(physics: Any, shape: Sequence[int]) -> tuple[LinearOperator, PixelMask | None]:
    """A, as fast as it is known to be, and which entries of a measurement it gives."""
    tensors = [*physics.parameters(), *physics.buffers()]
    floats = (t.dtype for t in tensors if t.is_floating_point() and t.ndim > 0)
    dtype = next(floats, torch.float32)

    def in_its_precision(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: function(x.to(dtype)).to(x.dtype)

    forward, adjoint = in_its_precision(physics.A), in_its_precision(physics.A_adjoint)
    given = from_function(forward, shape, adjoint=adjoint, device=_device(physics))
    # Its matrix has independent Gaussian entries, which no probe could tell.
    if isinstance(physics, deepinv.physics.CompressedSensing) and not physics.channelwise:
        matrix = from_matrix(physics._A, shape, rows="iid")
        if agrees(given, matrix):
            return matrix, None
    return recognized(given)


class DeepinvReconstructor(deepinv.models.Reconstructor):  # type: ignore[misc]
    """A solver with its prior as a reconstructor: ``model(y, physics)`` gives images on [0, 1].

    Args:
        solver: of this library.
        prior: of the kind that it needs; None where it needs none.

    Raises:
        InputError: no solver, or a prior of another kind.
    """

    def __init__(self, solver: Solver, prior: Prior | None = None) -> None:
        if not isinstance(solver, Solver):
            raise InputError(
                f"to_deepinv takes a solver, such as DiffEP(), not {type(solver).__name__}."
            )
        if prior is not None or solver.requires is not None:
            solver.check_prior(prior, getattr(prior, "shape", ()))
        super().__init__()
        self.solver, self.prior = solver, prior
        # Registered, so that .to(device) moves them.
        self.networks = nn.ModuleList([] if prior is None else prior.networks)

    def forward(
        self, y: Tensor, physics: Any, *, generator: Generators | None = None, **kwargs: object
    ) -> Tensor:
        """Images ``(B, C, H, W)`` on [0, 1].

        Args:
            y: what the physics measured.
            physics: see `from_deepinv`.
            generator: as solvers take it.
            kwargs: what deepinv gives to other models; not used.

        Raises:
            InputError: see `from_deepinv`, or the solver cannot treat the problem.
        """
        return unit_range.to_unit(self.recover(y, physics, generator=generator).image)

    def recover(self, y: Tensor, physics: Any, *, generator: Generators | None = None) -> Recovery:
        """The recovery, on [-1, 1], with samples, errors and the trace; arguments as `forward`."""
        shape = physics.A_adjoint(y).shape[1:] if self.prior is None else self.prior.shape
        problem = from_deepinv(physics, shape)
        return self.solver(problem, problem.measurements(y), self.prior, generator=generator)


to_deepinv = DeepinvReconstructor
"""The name that reads well: ``interop.to_deepinv(DiffEP(), prior)``."""


def prior_from_deepinv(
    denoiser: Any,
    shape: Sequence[int],
    *,
    sigma_max: float,
    sigma_min: float = 1e-3,
    mean_square: float = 0.25,
    error: ErrorCurve | Callable[[float | Tensor], Tensor] | None = None,
) -> CallablePrior:
    """A denoiser of deepinv as a prior.

    Args:
        denoiser: a ``deepinv.models.Denoiser``, called as ``denoiser(u, sigma)`` with images and σ
            on [0, 1].
        shape: of an image ``(C, H, W)``.
        sigma_min, sigma_max: the noise levels that it was trained on, on [-1, 1]: twice those that
            deepinv speaks of. Many denoisers know σ up to 0.2 there, which is 0.4 here; DiffEP and
            other diffusion methods want 2 or more and start from the largest level otherwise.
        mean_square, error: see `CallablePrior`.

    Raises:
        InputError: it is no denoiser of deepinv, or see `CallablePrior`.
    """
    if not isinstance(denoiser, deepinv.models.Denoiser):
        raise InputError(
            f"a deepinv.models.Denoiser was expected, not {type(denoiser).__name__}; for any other "
            "function use priors.from_callable."
        )
    return CallablePrior(
        unit_range.UnitDenoiser(denoiser).eval(),
        shape,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        mean_square=mean_square,
        error=error,
    )


class DeepinvDenoiser(deepinv.models.Denoiser):  # type: ignore[misc]
    """A prior as a denoiser of deepinv, for its plug-and-play and diffusion algorithms.

    Raises:
        InputError: no diffusion model.
    """

    def __init__(self, prior: Denoiser) -> None:
        if not isinstance(prior, Denoiser):
            raise InputError(
                f"a diffusion model is needed, such as load_prior('cats-64'), not "
                f"{type(prior).__name__}."
            )
        super().__init__()
        self.prior = prior
        self.networks = nn.ModuleList(prior.networks)

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoised images on [0, 1].

        Args:
            x: ``(B, C, H, W)``, images on [0, 1] in noise.
            sigma: σ on [0, 1], a float or one per image in any shape of B entries.
            kwargs: not used.
        """
        if isinstance(sigma, Tensor):
            sigma = sigma.flatten() if sigma.numel() > 1 else sigma.reshape(())
        return unit_range.to_unit(
            self.prior.denoise(unit_range.from_unit(x), unit_range.SCALE * sigma)
        )


denoiser_to_deepinv = DeepinvDenoiser
"""The name that reads well: ``interop.denoiser_to_deepinv(prior)``."""
