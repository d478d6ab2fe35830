"""What a trained model can do: three kinds of prior, and what solvers may ask of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from diffsplit.counting import count_network, uncounted
from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.priors.batches import in_batches
from diffsplit.priors.checks import check_batch, per_image

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ConsistencyModel", "Denoiser", "LatentModel", "Prior", "per_image"]


class Prior(ABC):
    """A trained model of images or signals. It is a `Denoiser`, a `ConsistencyModel` or a
    `LatentModel`; a solver names the kind that it needs in ``requires``.

    Attributes:
        kind: of model, in words for people.
        example: a bundled prior of that kind.
        shape: shape of one image (or signal), ``(C, H, W)`` for images.
        sigma_min, sigma_max: the noise levels, on images in [-1, 1], that the model knows.
        mean_square: E[x0²] per entry: the error of knowing nothing but a zero mean.
        bounds: the range that every entry of a clean image lies in, or None.
        scale_spread: relative standard deviation of an answer's scale where the measurements do not
            tell it, as single bits without noise do not. The default suits pictures.
    """

    kind: ClassVar[str]
    example: ClassVar[str]
    shape: tuple[int, ...]
    sigma_min: float
    sigma_max: float
    mean_square: float = 0.25
    bounds: tuple[float, float] | None = (-1.0, 1.0)
    scale_spread: float = 0.12
    _forward_bytes: dict[torch.device, int] | None = None  # of one image, where it was observed

    def clip(self, x: Tensor) -> Tensor:
        """``x`` moved into `bounds`, where the prior has any."""
        return x if self.bounds is None else x.clamp(*self.bounds)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that the model evaluates; a closed form has none."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        parameters = (p for network in self.networks for p in network.parameters())
        return next((p.device for p in parameters), torch.device("cpu"))

    def to(self, device: str | torch.device) -> Self:
        """Move the networks to a device, in place, and return the prior.

        Raises:
            InputError: this machine has no such device.
        """
        place = checked_device(device)
        for network in self.networks:
            network.to(place)
        return self

    def at(self, shape: Sequence[int]) -> Self:
        """The same model as a prior for images of another size, where its network allows that.

        A convolutional network can be evaluated on images of other sizes. It was not trained on
        them: things appear at the scale in pixels that they had in training, and nothing checks
        that the answers are good. The measured error v(σ) is not taken over, since it is that at
        another size; one that `diffsplit.calibration.calibrate_prior` stored for this size is.

        Args:
            shape: of the images ``(C, H, W)``, with the C of the model.

        Returns:
            A prior that shares the network; the prior itself where it has that shape.

        Raises:
            InputError: the model is of one size alone, of other channels, or the sides are not
                divisible by what its levels make of one pixel.
        """
        raise InputError(
            f"a {type(self).__name__} knows images of shape {tuple(self.shape)} alone; load a "
            "prior of the size that is wanted."
        )

    def __repr__(self) -> str:
        levels = f"σ {self.sigma_min:.3g} … {self.sigma_max:.3g}"
        return f"{type(self).__name__}({tuple(self.shape)}, {levels})"

    def describe(self) -> dict[str, object]:
        """Facts for people: what `diffsplit info` prints."""
        facts: dict[str, object] = {
            "kind": self.kind,
            "class": type(self).__name__,
            "shape": list(self.shape),
            "sigma_range": [self.sigma_min, self.sigma_max],
            "mean_square": self.mean_square,
        }
        if self.networks:
            facts["parameters"] = sum(p.numel() for n in self.networks for p in n.parameters())
        return facts

    def _evaluated(
        self, evaluate: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float | Tensor
    ) -> Tensor:
        """What the model answers to a batch that was checked and counted, in its precision.

        A batch that would not fit the memory of the device is evaluated in parts, see `batches`.
        Half precision does not hold σ² over the usual range; the computation is then in float32.

        The answer is contiguous: fused optimizers take the memory of two tensors side by side,
        whatever their strides.

        Args:
            evaluate: gets ``x``, and σ as ``(B,)``, moved into the range that the model knows.

        Raises:
            InputError: ``x`` or ``sigma`` has another shape or type.
        """
        check_batch(x, self.shape)
        wide = x.float() if x.dtype.itemsize < 4 else x
        levels = per_image(sigma, len(x), wide).clamp(self.sigma_min, self.sigma_max)
        count_network(len(x))
        with uncounted():  # of a model that evaluates another, only the outer one counts
            if not self.networks:
                return evaluate(wide, levels).to(x.dtype).contiguous()
            if self._forward_bytes is None:
                self._forward_bytes = {}
            answer = in_batches(evaluate, wide, levels, self._forward_bytes)
            return answer.to(x.dtype).contiguous()


class Denoiser(Prior):
    """A diffusion model in σ-space: `D(x, σ) ≈ E[x0 | x]` for x = x0 + σ n, n ~ N(0, I).

    A subclass defines `_denoise`, and sets `curve` or defines `error` where it knows its error.
    """

    kind = "diffusion model"
    example = "cats-64"
    curve: Callable[[float | Tensor], Tensor] | None = None

    @abstractmethod
    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`denoise` with ``x`` checked and ``sigma`` of shape ``(B,)`` inside the range."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The posterior mean E[x0 | x0 + σ n = x].

        Args:
            x: noisy images ``(B, *shape)``; the clean ones are on [-1, 1].
            sigma: noise level: a float, a 0-d tensor, or one per image ``(B,)``. Levels outside
                ``[sigma_min, sigma_max]`` are moved to the nearer end.

        Returns:
            Denoised images ``(B, *shape)``, not clipped.

        Raises:
            InputError: ``x`` or ``sigma`` has another shape or type.
        """
        return self._evaluated(self._denoise, x, sigma)

    def vjp(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """`denoise` together with its pullback, for methods with a gradient through the network.

        It may be called where gradients are switched off, and leaves those of the weights alone.

        Args:
            x, sigma: as in `denoise`.

        Returns:
            D(x, σ) ``(B, *shape)``, detached, and the function u ↦ (∂D/∂x)ᵀ u for ``u`` of the
            same shape. The function can be called once; it frees the graph.

        Raises:
            InputError: as `denoise`, or the answer carries no gradient.
        """
        check_batch(x, self.shape)
        with torch.inference_mode(False), torch.enable_grad():
            # A copy, since autograd cannot record a tensor that was made in inference mode.
            origin = x.detach().clone().requires_grad_()
            clean = self.denoise(origin, sigma)
        if not clean.requires_grad:
            raise InputError(
                f"{self!r} answers without a gradient, which this method needs; remove "
                "torch.no_grad and .detach() from its denoiser."
            )

        graph = [clean]  # the only reference, so that all of the graph goes with it

        def pullback(u: Tensor) -> Tensor:
            if not graph:
                raise InputError("a pullback is called once; call vjp again for another.")
            if not isinstance(u, Tensor) or u.shape != x.shape:
                raise InputError(f"a pullback takes a tensor of shape {tuple(x.shape)}.")
            (gradient,) = torch.autograd.grad(graph.pop(), origin, u.to(x))
            return gradient

        return clean.detach(), pullback

    def error(self, sigma: float | Tensor) -> Tensor | None:
        """v(σ), the mean squared error per entry of `denoise` at noise level σ.

        Returns:
            A tensor shaped like ``sigma``, or None where it was never measured (see
            `diffsplit.priors.measure_error`).
        """
        return None if self.curve is None else self.curve(sigma)


class ConsistencyModel(Prior):
    """One evaluation leads from a noisy image to one likely clean image: a draw, and not a mean.

    A subclass defines `_consistency`.
    """

    kind = "consistency model"
    example = "cats-64-consistency"

    @abstractmethod
    def _consistency(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`consistency` with ``x`` checked and ``sigma`` of shape ``(B,)`` inside the range."""

    def consistency(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """f(x, σ), the clean end of the probability-flow trajectory through x at level σ.

        Source: Song et al. 2023, Eq. 5.

        Args:
            x: noisy images ``(B, *shape)``; the clean ones are on [-1, 1].
            sigma: as in `Denoiser.denoise`.

        Returns:
            ``(B, *shape)``, not clipped.

        Raises:
            InputError: ``x`` or ``sigma`` has another shape or type.
        """
        return self._evaluated(self._consistency, x, sigma)


class LatentModel(Prior):
    """An autoencoder and a denoiser of its (scaled) latents.

    Attributes:
        latent: the denoiser; its noise levels are in the units of scaled latents.
    """

    kind = "latent diffusion model"
    example = "cats-64-latent"
    latent: Denoiser

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Scaled latents ``(B, *latent.shape)`` of images ``(B, *shape)`` on [-1, 1]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images ``(B, *shape)``, not clipped, of scaled latents; differentiable."""
