"""What a benchmark runs: images, tasks, solvers and seeds, as a YAML file says it.

title: Super-resolution of cats
data: cats                     # a data set by name, or a folder or zip of images
images: 8
size: 64
priors: {denoiser: cats-64}
rows:
  - {label: "×4, σ_y 0.05", task: super-resolution, sigma: 0.05}
solvers:
  - {label: DiffEP, solver: diffep}
  - {label: "DCDP, V1", solver: dcdp, purifier: ddim}
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from diffsplit.solvers import SOLVERS
from diffsplit.solvers.sampling import SamplingSolver
from diffsplit.tasks import OPERATORS, TASKS

__all__ = ["BASELINE", "METRICS", "Calibration", "Choice", "Config", "Method", "Priors", "Row"]

BASELINE = "linear-baseline"
"""The solver that stands for `diffsplit.solvers.linear_baseline` of the problem."""
METRICS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "lpips_vgg": "LPIPS (VGG)",
    "fid": "FID",
    "sign_consistency": "sign consistency",
    "cosine": "cosine similarity",
    "norm_error": "relative norm error",
    "sharpness": "sharpness: total variation over that of the truth",
    "bits_per_pixel": "bits per pixel",
    "seconds": "seconds",
    "nfe": "evaluations",
    "operator_calls": "operator calls",
    "peak_memory": "the most memory of a batch beyond the model's and the problem's, in MB",
    "predicted_ratio": "predicted over true squared error, of solvers that predict it",
    "converged": "share of the images that converged, of solvers that say so",
    "coverage": "coverage of 90 % intervals, of solvers that draw two samples or more",
    "coverage_hidden": "the same over the pixels that a mask hides",
}
"""What can be shown of an entry, by name."""
_LONGEST = 200


def _number(value: Any) -> Any:
    """A number such as 0.25, or a text such as 1/16."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            return value
    return value


Text = Annotated[str, Field(min_length=1, max_length=_LONGEST)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Skip = Annotated[int, Field(ge=0, le=10**6)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Choice = Literal["first", "spread"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Priors(_Part):
    """A prior for each kind of solver: a bundled name, a folder or a hub id.

    Attributes:
        denoiser: diffusion model of pixels.
        consistency: consistency model.
        latent: diffusion model of latents.
    """

    denoiser: Text | None = None
    consistency: Text | None = None
    latent: Text | None = None

    def over(self, other: Priors) -> Priors:
        """These, and what is missing of another's."""
        return Priors(**{**other.model_dump(), **self.model_dump(exclude_none=True)})


class Row(_Part):
    """A task: a row of the table.

    Attributes:
        label: in the table.
        task: one of `diffsplit.tasks`; the next seven are its parameters, see `tasks.problem`.
        data, size, priors: of this row, where they are not those of all.
    """

    label: Text
    task: str
    sigma: Annotated[Number | None, Field(ge=0)] = None
    rows: Count | None = None
    ratio: Annotated[Number | None, Field(gt=0, le=64)] = None
    bits: Annotated[int | None, Field(ge=1, le=16)] = None
    operator: str | None = None
    fraction: Annotated[Number | None, Field(ge=0, le=1)] = None
    std: Annotated[Number | None, Field(gt=0)] = None
    data: Text | None = None
    size: Annotated[int | None, Field(ge=1, le=4096)] = None
    priors: Priors = Priors()

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the task that are set, for `tasks.problem`."""
        names = {"sigma", "rows", "ratio", "bits", "operator", "fraction", "std"}
        return self.model_dump(include=names, exclude_none=True)

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"there is no task {task!r:.40}; choose one of {', '.join(TASKS)}")
        return task

    @field_validator("operator")
    @classmethod
    def _known_operator(cls, operator: str | None) -> str | None:
        if operator is not None and operator not in OPERATORS:
            raise ValueError(f"the operator is one of {', '.join(OPERATORS)}, not {operator!r:.40}")
        return operator

    @model_validator(mode="after")
    def _parameters_of_the_task(self) -> Row:
        known = TASKS[self.task].parameters
        for name in self.parameters:
            if name not in known:
                raise ValueError(f"the task {self.task} has no {name}, only {', '.join(known)}")
        return self


class Calibration(_Part):
    """Held-out images on which the intervals of a method are calibrated.

    Attributes:
        data: a data set by name, or a folder or zip of images; by default that of the row.
        images, skip: how many, and how many before them are passed over; by default those that are
            shown, if they are of the same data. None of those may be among them.
        choose: as in `Config`.
        level, delta, groups: see `diffsplit.uncertainty.calibrate`. The metric "coverage" is that
            of 90 % intervals.
    """

    data: Text | None = None
    images: Count = 40
    skip: Skip | None = None
    choose: Choice = "first"
    level: Annotated[Number, Field(gt=0, lt=1)] = 0.9
    delta: Annotated[Number | None, Field(gt=0, lt=1)] = None
    groups: Count = 1


class Method(_Part):
    """A solver with its settings: a column of the table.

    Attributes:
        label: in the table; two with one label serve different rows.
        solver: a name of `diffsplit.solvers.SOLVERS`, or `BASELINE`. One that this version does
            not have yet is reported as missing.
        settings: parameters of the solver.
        purifier, ending: of DCDP, see `DCDP.preset`; the same as among the settings.
        preset: the task whose preset is taken; by default that of the row.
        prior: instead of the one of its kind.
        rows: labels of the rows that it is for; by default all.
        calibration: images on which its intervals are calibrated, for each row, by each process
            that runs it; None leaves them as they are.
    """

    label: Text
    solver: Text
    settings: dict[str, Any] = {}
    purifier: str | None = None
    ending: Literal["paper", "adapted"] | None = None
    preset: str | None = None
    prior: Text | None = None
    rows: list[Text] | None = None
    calibration: Calibration | None = None

    @property
    def all_settings(self) -> dict[str, Any]:
        """The settings with ``purifier`` and ``ending``."""
        return {
            **self.settings,
            **self.model_dump(include={"purifier", "ending"}, exclude_none=True),
        }

    def serves(self, row: str) -> bool:
        """Whether it is for the row of a label."""
        return self.rows is None or row in self.rows

    @model_validator(mode="after")
    def _draws_what_is_calibrated(self) -> Method:
        if self.calibration is None:
            return self
        kind: Any = SOLVERS.get(self.solver)
        known = kind is not None or self.solver == BASELINE
        if known and not (isinstance(kind, type) and issubclass(kind, SamplingSolver)):
            raise ValueError(f"the solver {self.solver} draws no samples, and has no intervals")
        samples = self.settings.get("samples", 1)
        if known and not (isinstance(samples, int) and samples >= 2):
            raise ValueError("calibration needs two samples or more; set settings.samples to 8")
        return self

    @model_validator(mode="after")
    def _known_settings(self) -> Method:
        kind: Any = SOLVERS.get(self.solver)
        if kind is not None and is_dataclass(kind):
            known = {field.name for field in fields(kind)}
            known |= {"ending", "data"} if hasattr(kind, "preset") else set()
            for name in self.all_settings:
                if name not in known:
                    raise ValueError(
                        f"the solver {self.solver} has no setting {name!r:.40}, only "
                        f"{', '.join(sorted(known)) or 'none'}"
                    )
        return self


class Config(_Part):
    """A benchmark.

    Attributes:
        title: of the report.
        source: the table of the paper that it repeats.
        data: a data set by name, see `diffsplit.bench.data`, or a folder or zip of images.
        images: how many of each data set.
        skip: how many are passed over first.
        choose: the first of them, or evenly spread over all.
        size: side in pixels that they are cropped and resized to.
        priors: by kind.
        half: networks compute in bfloat16.
        rows, solvers: what is run on what.
        seeds: each gives an operator, noise and randomness of the solver.
        metrics: to show, in this order.
        printed: what the paper prints: ``{row: {column: {metric: text}}}``, of methods that are run
            and of others.
        pictures: of how many images the pictures are kept.
        batch: the most images that a solver gets at once, if their memory allows it.
    """

    title: Text
    source: str = ""
    data: Text
    images: Count = 100
    skip: Skip = 0
    choose: Choice = "first"
    size: Annotated[int, Field(ge=1, le=4096)] = 256
    priors: Priors = Priors()
    half: bool = False
    rows: Annotated[list[Row], Field(min_length=1)]
    solvers: Annotated[list[Method], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    metrics: Annotated[list[str], Field(min_length=1)] = ["psnr", "ssim", "lpips"]
    printed: dict[str, dict[str, dict[str, str]]] = {}
    pictures: Annotated[int, Field(ge=0)] = 8
    batch: Count | None = None

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: list[str]) -> list[str]:
        for metric in metrics:
            if metric not in METRICS:
                raise ValueError(f"a metric is one of {', '.join(METRICS)}, not {metric!r:.40}")
        return metrics

    @model_validator(mode="after")
    def _labels_that_differ(self) -> Config:
        labels = [row.label for row in self.rows]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two rows have the label {label!r}")
            columns = [method.label for method in self.solvers if method.serves(label)]
            for column in columns:
                if columns.count(column) > 1:
                    raise ValueError(f"two solvers of the row {label!r} have the label {column!r}")
        wanted = {label for method in self.solvers for label in method.rows or ()}
        for label in [*wanted, *self.printed]:
            if label not in labels:
                raise ValueError(f"there is no row {label!r:.60}")
        return self
