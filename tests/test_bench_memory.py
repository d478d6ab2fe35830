"""Peak memory: what a computation takes for a while is seen, and what it gives back is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bench_cases import config, rows_of

from diffsplit.bench import memory
from diffsplit.bench.memory import peak_memory
from diffsplit.bench.run import run

MEGABYTES = 200


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="only Linux tells the peak of a process")
def test_the_peak_of_a_block_is_what_it_took_for_a_while() -> None:
    kept = torch.ones(MEGABYTES * 10**6 // 4)  # before the block: not counted
    with peak_memory(torch.device("cpu")) as large:
        torch.ones(MEGABYTES * 10**6 // 4).sum()
    with peak_memory(torch.device("cpu")) as small:
        torch.ones(1000).sum()
    assert kept.sum() > 0
    assert large.bytes is not None
    assert small.bytes is not None
    assert pytest.approx(large.bytes, rel=0.1) == MEGABYTES * 1e6
    assert small.bytes < 0.1 * MEGABYTES * 1e6


def test_where_the_system_does_not_tell_there_is_no_number(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "nowhere" / "clear_refs")
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(10).sum()
    assert peak.bytes is None
    run(config(prior, images=1), tmp_path / "run")
    assert all("peak_memory" not in entry.values for entry in rows_of(tmp_path / "run"))


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="only Linux tells the peak of a process")
def test_a_benchmark_keeps_the_peak_of_each_batch(prior: str, tmp_path: Path) -> None:
    run(config(prior, images=2), tmp_path)
    assert all(0 <= entry.values["peak_memory"] < 1000 for entry in rows_of(tmp_path))
