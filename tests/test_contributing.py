"""The toy solver of the contributors' guide: it runs as written, and the command line finds it."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

import diffsplit as ds
from diffsplit.io.images import example_cats
from diffsplit.metrics import psnr
from diffsplit.solvers import SOLVERS, Solver, linear_baseline

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Solver]:
    """The guide's file as a module, and its line in the list of solvers."""
    source = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)[0]
    module = types.ModuleType("projected")
    monkeypatch.setitem(sys.modules, "projected", module)
    exec(compile(source, "projected.py", "exec"), module.__dict__)
    monkeypatch.setitem(SOLVERS, "projected", module.ProjectedDenoising)
    solver: type[Solver] = module.ProjectedDenoising
    return solver


def test_the_solver_of_the_guide_recovers_cats_better_than_a_linear_estimate(
    toy: type[Solver],
) -> None:
    x = example_cats()[:2]
    operator = ds.operators.PixelMask((3, 64, 64), fraction=0.5, seed=0)
    problem = ds.Problem(operator, ds.channels.GaussianNoise(0.02))
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    result = toy.for_problem(problem, steps=8)(problem, y, ds.load_prior("cats-64"))
    assert result.nfe == len(result.trace) == 8
    assert (psnr(result.image, x) > psnr(linear_baseline(problem)(problem, y).image, x)).all()
    blur = ds.Problem(ds.operators.Blur.gaussian((3, 64, 64), 3, 1.0), problem.channel)
    with pytest.raises(ds.InputError, match="orthogonal rows"):
        toy()(blur, x, ds.load_prior("cats-64"))
