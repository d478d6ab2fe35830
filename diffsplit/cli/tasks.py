"""The tasks on the command line: what is done to an image, as an operator and a channel."""

from __future__ import annotations

import math
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING

from diffsplit.cli.common import OperatorKind, build_operator
from diffsplit.cli.restoration import Restoration, restoration_operator
from diffsplit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.channels.base import Channel
    from diffsplit.operators.base import LinearOperator
    from diffsplit.problem import Problem

__all__ = ["Task", "problem_for"]


class Task(str, Enum):
    """What is done to the image."""

    onebit_cs = "onebit-cs"
    logistic = "logistic"
    onebit_inpainting = "onebit-inpainting"
    quantized = "quantized"
    inpaint_box = Restoration.inpaint_box.value
    inpaint_random = Restoration.inpaint_random.value
    super_resolution = Restoration.super_resolution.value
    gaussian_deblur = Restoration.gaussian_deblur.value
    motion_deblur = Restoration.motion_deblur.value
    denoise = Restoration.denoise.value

    @property
    def restoration(self) -> Restoration | None:
        """The task of image restoration that it is, if any."""
        known = self.value in [r.value for r in Restoration]
        return Restoration(self.value) if known else None


def problem_for(
    x: Tensor,
    task: Task,
    seed: int,
    *,
    rows: int | None = None,
    ratio: str | None = None,
    sigma: float | None = None,
    bits: int | None = None,
    kind: OperatorKind | None = None,
    fraction: float | None = None,
) -> Problem:
    """The operator and channel of a task, from options of `diffsplit measure` that may be None.

    Args:
        x: the images to be measured ``(B, C, H, W)``: their size, and the range of a quantizer.

    Raises:
        InputError: an option does not belong to the task, or makes no sense.
    """
    from diffsplit.problem import Problem

    shape = (x.shape[1], x.shape[2], x.shape[3])
    if task.restoration is not None:
        others: dict[str, object] = {
            "--rows": rows,
            "--ratio": ratio,
            "--bits": bits,
            "--operator": kind,
        }
        if task is not Task.inpaint_random:
            others["--fraction"] = fraction
        for option, value in others.items():
            if value is not None:
                raise InputError(f"the task {task.value} knows no {option}; leave it out.")
        return _restoration(task.restoration, shape, sigma, fraction, seed)
    inpainting = task is Task.onebit_inpainting
    kind = kind or (OperatorKind.mask if inpainting else OperatorKind.gaussian)
    masked = kind is OperatorKind.mask
    if inpainting and not masked:
        raise InputError(
            f"the task {task.value} measures pixels; leave out --operator or use "
            f"--task {Task.onebit_cs.value}."
        )
    if rows is not None and ratio is not None:
        raise InputError("--rows and --ratio say the same thing; give one of them.")
    if masked and (rows is not None or ratio is not None):
        raise InputError("a mask has no --rows or --ratio; choose its pixels with --fraction.")
    if fraction is not None and not masked:
        raise InputError(
            "--fraction belongs to a mask; for other operators give --rows or --ratio."
        )
    if bits is not None and task is not Task.quantized:
        raise InputError("--bits belongs to --task quantized; leave it out.")
    if sigma is not None and task is Task.logistic:
        raise InputError("the task logistic has its own randomness; leave out --sigma.")
    count = rows or max(1, round(_ratio(ratio or "1/16") * math.prod(shape)))
    operator = build_operator(kind, shape, count, 0.5 if fraction is None else fraction, seed)
    return Problem(operator, _channel(x, operator, task, sigma, bits, masked))


def _restoration(
    task: Restoration,
    shape: tuple[int, int, int],
    sigma: float | None,
    fraction: float | None,
    seed: int,
) -> Problem:
    from diffsplit.channels import GaussianNoise
    from diffsplit.problem import Problem

    operator = restoration_operator(task, shape, 0.5 if fraction is None else fraction, seed)
    if sigma is None:
        sigma = 0.1 if task is Restoration.denoise else 0.0
    return Problem(operator, GaussianNoise(sigma))


def _ratio(text: str) -> float:
    try:
        ratio = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        ratio = math.nan
    if not 0 < ratio <= 64:
        raise InputError(f"--ratio {text:.20}: give a positive number such as 1/16 or 0.25.")
    return ratio


def _channel(
    x: Tensor,
    operator: LinearOperator,
    task: Task,
    sigma: float | None,
    bits: int | None,
    masked: bool,
) -> Channel:
    from diffsplit.channels import Logistic, OneBit, Quantized

    if task is Task.logistic:
        return Logistic()
    if task is not Task.quantized:
        return OneBit(sigma=0.5 if sigma is None else sigma)
    # Sums of pixels are near normal, of variance c̄ · E[x²]: three deviations hold 99.7 % of them.
    limit = 1.0 if masked else 3 * math.sqrt(operator.gram.mean * x.square().mean().item())
    return Quantized(bits=bits or 4, sigma=sigma or 0.0, limit=max(limit, 1e-3))
