"""The exact data step against the paper's 100 Adam steps: seconds, and the objective reached."""

from __future__ import annotations

from functools import partial

import torch
from common import cats, interleave, machine, one_bit, parser

from diffsplit.data_steps import adam_step, exact_step


def main() -> None:
    parser(__doc__).parse_args()
    print(machine())
    x = cats()
    for kind in ("gaussian", "hadamard"):
        problem = one_bit(768, kind)
        generator = torch.Generator().manual_seed(0)
        y = problem.measure(x, generator=generator)
        z = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
        for mu in (0.02, 2.0, 200.0):
            steps = {"exact": exact_step, "adam": adam_step}
            with torch.no_grad():
                seconds = interleave(
                    {name: partial(step, problem, y, z, mu) for name, step in steps.items()}, 3
                )
                value = {}
                for name, step in steps.items():
                    image = step(problem, y, z, mu)
                    distance = (image - z).flatten(1).square().sum(1)
                    value[name] = (problem.nll(image, y) + mu / 2 * distance).mean().item()
            print(
                f"{kind:9} M=768 batch 8 μ={mu:<6g} exact {1000 * seconds['exact']:7.1f} ms, "
                f"Adam {1000 * seconds['adam']:7.1f} ms, ratio "
                f"{seconds['adam'] / seconds['exact']:6.1f}; objective {value['exact']:8.2f} "
                f"against {value['adam']:8.2f}"
            )


if __name__ == "__main__":
    main()
