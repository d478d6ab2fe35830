"""``diffsplit bench`` and ``diffsplit compare``: solvers on tasks, resumed where they stopped."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from diffsplit.bench.build import build
from diffsplit.bench.cluster import on_cluster
from diffsplit.bench.config import BASELINE, Config
from diffsplit.bench.lines import read_yaml
from diffsplit.bench.methods import KINDS
from diffsplit.bench.run import Execute, Progress, run
from diffsplit.bench.shipped import find_config
from diffsplit.bench.store import Entry, Store
from diffsplit.cli.common import Device, device_named, say
from diffsplit.errors import InputError
from diffsplit.priors import ConsistencyModel, Denoiser, LatentModel, load_prior
from diffsplit.report import write_report
from diffsplit.solvers import SOLVERS
from diffsplit.tasks import TASKS

__all__ = ["bench", "compare"]

MANY = 10**6
"""Images where all are wanted."""
REASONS = 5
"""Why something failed or is missing, said at most so often."""
PAUSE = 30.0
"""Seconds between lines of progress where there is no terminal."""
OF_CATS = ("cats", "afhq-cats")
"""Pictures that the bundled models are for, which are taken without ``--prior``."""

Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        help="Processes on this machine, each with one thread, or one GPU each (default: this one "
        "with all threads); with --ray, at most so many of the cluster (default: all).",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Compute on a Ray cluster: its address, auto, or local. Needs the extra "
        r"'diffsplit\[cluster]'.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where data sets such as FFHQ are (default: $DIFFSPLIT_DATA)."
    ),
]


def bench(
    config: Annotated[str, typer.Argument()],
    output: Output,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    data: Data = None,
    workers: Workers = None,
    ray: Ray = None,
    device: Device = "auto",
) -> None:
    """Run solvers on tasks, images and seeds, and keep the results.

    What is in DIR already is not computed again: stop at any time and run the same command again.

    Args:
        config: A YAML file, or a table of the papers, such as diff-onebit/table-1 or dcdp/table-9;
            with @cats or @faces behind it on the bundled priors and pictures.
        output: Folder for the results; diffsplit report makes a page of it.
        set_: Set a field of the configuration otherwise, such as images=20; give it again for
            another.

    Examples:
        diffsplit bench dcdp/table-9@cats -o table-9
        diffsplit bench diff-onebit/table-1@faces -o table-1 --set images=20
        diffsplit bench mine.yaml -o results --workers 4 --set rows.0.sigma=0.1
    """
    _run(find_config(config, set_ or []), output, data, workers, ray, device)
    print(f"Make a page of it with: diffsplit report {quote(str(output))}")


def compare(
    folder: Annotated[str, typer.Argument(metavar="FOLDER")],
    output: Output,
    task: Annotated[list[str], typer.Option()],
    solvers: Annotated[list[str], typer.Option()],
    prior: Annotated[list[str] | None, typer.Option()] = None,
    images: Annotated[int | None, typer.Option(min=1, max=MANY)] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, max=2**32 - 1)] = None,
    data: Data = None,
    workers: Workers = None,
    ray: Ray = None,
    device: Device = "auto",
) -> None:
    """Compare solvers on your own pictures, and make a page of it.

    The pictures are cropped around their middle and resized to the size that the prior knows.

    Args:
        folder: A folder or zip of pictures, or cats, face, faces, ffhq, celeba-hq, imagenet,
            lsun-bedrooms or afhq-cats.
        output: Folder for the results, and the page in report/index.html. What is there already is
            not computed again.
        task: What is kept of the pictures, with parameters after colons, and several with commas
            between them, such as super-resolution:sigma=0.05,onebit-cs:ratio=1/16.
        solvers: The algorithms with their settings, in the same way, such as
            diffep:samples=8,dcdp:purifier=ddim,linear-baseline.
        prior: The model of images: a bundled name, a folder or a hub id; give it again for one of
            another kind (default: the bundled ones for cats).
        images: How many of the pictures (default: all).
        seed: Of all randomness; give it again for another.

    Examples:
        diffsplit compare holiday/ --task super-resolution --solvers diffep,dcdp -o holiday-results
        diffsplit compare cats --task onebit-cs --solvers diffep,diff-onebit --images 4 -o cats
        diffsplit compare me.zip --prior faces-256 --task motion-deblur:sigma=0.05 \
            --solvers diffep,dcdp:purifier=ddim,linear-baseline -o me
    """
    priors, side = _priors(prior or [])
    rows = [{"label": label, "task": name, **given} for label, name, given in _parts("task", task)]
    methods = [
        {"label": label, "solver": name, "settings": given}
        for label, name, given in _parts("solvers", solvers)
    ]
    for key, known, parts in (("task", TASKS, rows), ("solver", [*SOLVERS, BASELINE], methods)):
        for part in parts:
            if part[key] not in known:
                raise InputError(
                    f"there is no {key} {part[key]!r:.40}; choose from {', '.join(known)}."
                )
    values = {
        "title": f"Comparison on {Path(folder).name}",
        "data": folder,
        "images": images or MANY,
        "size": side,
        "priors": priors,
        "rows": rows,
        "solvers": methods,
        "seeds": seed or [0],
        "metrics": ["psnr", "ssim", "lpips", "seconds", "nfe"],
    }
    document = read_yaml(yaml.safe_dump(values, allow_unicode=True), "this comparison")
    if not prior and folder not in OF_CATS:
        say(
            "Note: without --prior the bundled models of cats are taken, which draw a cat into "
            "whatever is missing; for other pictures give a model of such pictures, such as "
            "faces-256."
        )
    _run(build(document), output, data, workers, ray, device)
    with Store.open(output) as store:
        (page,) = write_report(store, output / "report", ["html"])
    print(f"The page: {page}")
    print(f"Tables and figures for a paper: diffsplit report {quote(str(output))}")


def _priors(names: list[str]) -> tuple[dict[str, str], int]:
    """Each under the name of its kind, and the side of the images that they know."""
    names = names or [kind.example for kind in (Denoiser, ConsistencyModel, LatentModel)]
    found: dict[str, str] = {}
    sides: dict[str, int] = {}
    for name in names:
        prior = load_prior(name)
        kind = next(word for kind, word in KINDS.items() if isinstance(prior, kind))
        shape = tuple(prior.shape)
        if kind in found:
            raise InputError(f"{found[kind]} and {name} are both a {prior.kind}; give one of them.")
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            raise InputError(f"{name}: is for images of shape {shape}, not square and in color.")
        found[kind], sides[name] = name, shape[1]
    if len(set(sides.values())) > 1:
        raise InputError(f"the priors are for images of several sizes ({sides}); give one size.")
    return found, next(iter(sides.values()))


def _parts(option: str, texts: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Label, name and settings of each part of ``name:key=value:key=value,name``."""
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, *settings = part.split(":")
        given: dict[str, Any] = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals:
                raise InputError(f"--{option} {part}: write KEY=VALUE after a colon.")
            try:
                given[key.strip()] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise InputError(f"--{option} {part}: {value!r:.40} is no value.") from error
        words = ", ".join(f"{key} {value}" for key, value in given.items())
        if name:
            yield f"{name}, {words}" if words else name, name, given


def _run(
    config: Config,
    output: Path,
    data: Path | None,
    workers: int | None,
    ray: str | None,
    device: str,
) -> None:
    place = str(device_named(device))
    execute: Execute | None = None if ray is None else on_cluster(ray, place, workers)
    with _progress() as show:
        summary = run(
            config,
            output,
            device=place,
            workers=workers or 1,
            root=data,
            execute=execute,
            callback=show,
        )
    for note in dict.fromkeys(summary.notes):
        say(f"Note: {note}")
    with Store.open(output) as store:
        _say_why(store.entries())
    print(
        f"{output}: {summary.done} done, {summary.failed} failed, {summary.missing} missing; "
        f"{summary.computed} computed in {summary.seconds:.0f} s, the solvers' own "
        f"{summary.solver_seconds:.0f} s"
    )


def _say_why(entries: Sequence[Entry]) -> None:
    """Why some failed and others are missing, the most frequent reasons first."""
    undone = Counter((e.status, e.solver, e.row, e.reason) for e in entries if e.status != "done")
    for (status, solver, row, reason), count in undone.most_common(REASONS):
        images = "1 image" if count == 1 else f"{count} images"
        say(f"{status.capitalize()} on {images}: {solver}, {row}: {reason}")
    if len(undone) > REASONS:
        say(f"{len(undone) - REASONS} more reasons are in the report.")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Progress on stderr with the time left: a bar on terminals, elsewhere a line now and then."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


class _Lines:
    """Progress as plain lines, for the log of a long run."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def show(self, progress: Progress) -> None:
        """A line, if the last one is long ago."""
        if time.monotonic() - self.last < PAUSE:
            return
        self.last = time.monotonic()
        left = "" if progress.left is None else f", {_time(progress.left)} left"
        say(f"{progress.done} of {progress.total} ({progress.label}){left}")


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, left="")

        def show(progress: Progress) -> None:
            left = "" if progress.left is None else f"{_time(progress.left)} left"
            bar.update(
                task,
                description=progress.label,
                completed=progress.done,
                total=progress.total,
                left=left,
            )

        yield show


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
