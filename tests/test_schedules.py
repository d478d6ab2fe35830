import itertools
import math

import pytest

from diffsplit.errors import InputError
from diffsplit.schedules import ddpm_grid, ddpm_sigmas, karras_grid


def test_ddpm_levels_follow_the_product_of_the_linear_betas():
    sigmas, alpha_bar = ddpm_sigmas(), 1.0
    for t in range(1000):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        assert sigmas[t] == pytest.approx(math.sqrt((1 - alpha_bar) / alpha_bar), rel=1e-6)
    assert sigmas[0] == pytest.approx(0.01, rel=1e-3)
    assert sigmas[-1] == pytest.approx(157.4, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 7, 20, 50, 1000])
def test_grids_fall_strictly_to_zero_from_the_noisiest_level(steps):
    for grid in (ddpm_grid(steps), karras_grid(steps, 80.0, 0.002)):
        assert len(grid) == steps + 1
        assert grid[-1] == 0
        assert all(a > b for a, b in itertools.pairwise(grid))
    assert ddpm_grid(steps)[0] == ddpm_sigmas()[-1]
    assert karras_grid(steps, 80.0, 0.002)[0] == pytest.approx(80.0)


def test_the_roots_of_karras_levels_are_evenly_spaced():
    roots = [sigma ** (1 / 7) for sigma in karras_grid(20, 80.0, 0.002)[:-1]]
    gaps = [a - b for a, b in itertools.pairwise(roots)]
    assert gaps == pytest.approx([(80.0 ** (1 / 7) - 0.002 ** (1 / 7)) / 19] * 19)


@pytest.mark.parametrize(
    "grid",
    [
        *(lambda steps=steps: ddpm_grid(steps) for steps in (0, 1001, -3)),
        lambda: ddpm_grid(20, 1001),
        lambda: karras_grid(0, 80.0, 0.002),
        lambda: karras_grid(20, 0.002, 80.0),
        lambda: karras_grid(20, 80.0, 0.0),
        lambda: karras_grid(20, math.inf, 0.002),
    ],
)
def test_impossible_grids_are_refused(grid):
    with pytest.raises(InputError):
        grid()
