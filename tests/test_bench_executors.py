"""Where a benchmark is computed: several processes, one of which may die, or a cluster."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bench_cases import config, numbers, rows_of

from diffsplit.bench.cells import expand
from diffsplit.bench.cluster import on_cluster
from diffsplit.bench.executors import DIED, in_processes
from diffsplit.bench.run import Progress, run
from diffsplit.errors import InputError, MissingDependencyError

WITHOUT_RAY = importlib.util.find_spec("ray") is None


class Deadly(str):
    """A name that ends the process which is sent it, as too little memory would."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_which_one_is_killed_give_the_rows_of_one(
    prior: str, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if not killed:
            child = multiprocessing.active_children()[0]
            killed.append(child.pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    run(config(prior, batch=1), tmp_path / "one")
    run(config(prior, batch=1), tmp_path / "two", workers=2, callback=kill_one)
    assert killed
    assert numbers(rows_of(tmp_path / "one")) == numbers(rows_of(tmp_path / "two"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_unit_that_kills_its_process_is_given_up_and_the_others_are_done(prior: str) -> None:
    from dataclasses import replace

    units = expand(config(prior, batch=1)).units
    units[3] = replace(units[3], names=(Deadly("cat.png"),))
    found = {unit.keys: done.entries for unit, done in in_processes(units, 2, "cpu")}
    assert set(found) == {unit.keys for unit in units}
    for unit in units:
        (entry,) = found[unit.keys]
        assert entry.reason == (DIED if unit is units[3] else "")


ORPHAN = """
import os, signal
from diffsplit.bench.executors import _pool

if __name__ == "__main__":
    pool = _pool(1, "cpu")
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_ends_when_the_run_that_started_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    worker, end = int(done.stdout), time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker goes on without the run")


@pytest.mark.skipif(not WITHOUT_RAY, reason="Ray is installed")
def test_without_ray_a_cluster_is_refused_with_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match=r"diffsplit\[cluster\]"):
        on_cluster("local", "cpu")


class NoRay:
    """Stands for Ray where the cluster is not there, or has no GPU."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.running = error, False

    def init(self, **options: object) -> None:
        if self.error is not None:
            raise self.error
        self.running = True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def shutdown(self) -> None:
        self.running = False


@pytest.mark.parametrize("error", [ConnectionError, ValueError, NoRay.exceptions.RayError])
def test_a_cluster_that_does_not_answer_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr("diffsplit.bench.cluster._ray", lambda: NoRay(error("timed out")))
    with pytest.raises(InputError, match=r"--ray head:1: the cluster does not answer \(timed out"):
        on_cluster("head:1", "cpu")


def test_a_cluster_without_a_gpu_is_refused_where_one_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = NoRay()
    monkeypatch.setattr("diffsplit.bench.cluster._ray", lambda: ray)
    with pytest.raises(InputError, match="the cluster has no GPU"):
        on_cluster("local", "cuda")
    assert not ray.running


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(WITHOUT_RAY, reason="Ray is not installed: pip install 'diffsplit[cluster]'")
def test_a_local_cluster_of_two_of_which_one_is_killed_gives_the_rows_of_one(
    prior: str, tmp_path: Path
) -> None:
    import psutil
    import ray

    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if not killed:
            inside = psutil.Process().children(recursive=True)
            actors = [one for one in inside if "Worker.run" in "".join(one.cmdline())]
            assert actors, "no actor is at work"
            killed.append(actors[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    run(config(prior, batch=1), tmp_path / "one")
    cluster = on_cluster("local", "cpu", workers=2)
    run(config(prior, batch=1), tmp_path / "two", execute=cluster, callback=kill_one)
    assert not ray.is_initialized()
    assert killed
    assert numbers(rows_of(tmp_path / "one")) == numbers(rows_of(tmp_path / "two"))
