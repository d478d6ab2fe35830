"""``diffsplit distill``: a denoiser becomes a consistency model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from diffsplit.cli.train import CardLicense, CardName, CpuOnly, given, said

__all__ = ["distill"]


def distill(
    prior: Annotated[str, typer.Argument()],
    out: Annotated[Path, typer.Option()],
    data: Annotated[Path | None, typer.Option(metavar="FOLDER_OR_ZIP")] = None,
    images: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option()] = None,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    validation: Annotated[Path | None, typer.Option()] = None,
    cpu: CpuOnly = False,
    name: CardName = None,
    license_: CardLicense = None,
) -> None:
    """Distill a diffusion model into a consistency model: clean images in a single evaluation.

    Use the result with recover --solver dcdp --purifier consistency. Progress is saved every few
    minutes: stop at any time and continue with --resume. Needs the extra:
    pip install 'diffsplit\\[train]'.

    Args:
        prior: The teacher: a bundled name, a folder or a hub id.
        out: New folder for the consistency model and the log of its training.
        data: Images to start from, better for restoration; without them it starts from noise alone.
        images: Length of the run: training pairs seen; 100000 by default.
        batch: Pairs per step; 24 by default.
        lr: Peak learning rate, 0.002 by default; lower it if a run diverges.
        resume: Go on from the checkpoint in --out, with the options it was started with; --images
            and --lr may be given anew, PRIOR and --data are given again.
        validation: Folder or zip of images to measure the error on; without it 2 % of --data are
            kept out, or samples of the teacher are used.
    """
    from diffsplit.training.distill import DistillConfig, started_distill_config
    from diffsplit.training.distill import distill as run

    config = started_distill_config(out) if resume else DistillConfig()
    run(
        prior,
        out,
        replace(config, **given(images=images, batch=batch, lr=lr)),
        data=data,
        validation=validation,
        resume=resume,
        facts=said(out, resume, name, license_),
        cpu=cpu,
    )
    print(f"{out}: a consistency model.")
    print(f"Use it with recover --solver dcdp --purifier consistency --prior {quote(str(out))}")
