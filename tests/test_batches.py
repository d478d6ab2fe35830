"""Batches that fit the memory, and compiled networks: neither changes a result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_networks import tiny_edm
from torch import Tensor

import diffsplit as ds
from diffsplit.counting import counting
from diffsplit.errors import InputError
from diffsplit.priors import GaussianPrior, load_prior
from diffsplit.priors.batches import SHARE, bytes_of_forward_pass


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_bytes_of_a_forward_pass_are_those_that_live_at_one_time() -> None:
    def chain(x: Tensor, sigma: Tensor) -> Tensor:
        for _ in range(5):
            x = x + sigma  # the last one may go when the next one is there
        return x.view(-1)[:3]

    x = noise(1, 1000)
    assert bytes_of_forward_pass(chain, x, torch.ones(1)) == 2 * x.nbytes


def test_many_images_go_through_a_network_in_parts_that_fit_and_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior, x, sigma = tiny_edm(), noise(7, 3, 16, 16), torch.linspace(0.1, 2.0, 7)
    sizes: list[int] = []
    prior.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.no_grad():
        whole = prior.denoise(x, sigma)
        assert sizes == [7]
        one = bytes_of_forward_pass(prior._denoise, x[:1], sigma[:1])
        monkeypatch.setattr("diffsplit.priors.batches.memory_of", lambda _: 3.5 * one / SHARE)
        sizes.clear()
        for _ in range(2):
            with counting() as count:
                parts = prior.denoise(x, sigma)
            assert count.network == 7
            torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert sizes == [1, 3, 2, 2, 3, 2, 2]  # one image is observed once


def test_a_recovery_in_tiny_parts_is_the_recovery_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, x = tiny_edm(), noise(3, 3, 16, 16).clamp(-1, 1)
    problem = ds.tasks.problem("onebit-cs", (3, 16, 16), rows=100, operator="hadamard")
    y = problem.measure(x, generator=torch.Generator().manual_seed(1))
    solver = ds.solvers.DiffEP(iterations=3)
    whole = solver(problem, y, prior)
    monkeypatch.setattr("diffsplit.priors.batches.memory_of", lambda _: 1.0)
    parts = solver(problem, y, prior)
    assert parts.nfe == whole.nfe
    torch.testing.assert_close(parts.image, whole.image, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_prior_answers_as_before(tmp_path: Path) -> None:
    prior = tiny_edm()
    prior.save(tmp_path / "prior", half=False)
    compiled = load_prior(tmp_path / "prior", compile=True)
    x = noise(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled.denoise(x, 0.7), prior.denoise(x, 0.7), rtol=1e-4, atol=1e-4
        )


def test_a_network_that_cannot_be_compiled_stays_as_it_was_and_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = tiny_edm()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    def compile_with_nothing(network: torch.nn.Module) -> None:
        network._compiled_call_impl = broken

    monkeypatch.setattr(torch.nn.Module, "compile", compile_with_nothing)
    with pytest.raises(InputError, match=r"cannot be compiled here .*no compiler"):
        load_prior(prior, compile=True)
    assert prior.denoise(noise(1, 3, 16, 16), 1.0).isfinite().all()
    with pytest.raises(InputError, match="has no network, and compile is for networks"):
        load_prior(GaussianPrior((3, 16, 16), 0.25), compile=True)
