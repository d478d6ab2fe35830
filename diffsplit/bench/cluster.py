"""Units on the machines of a Ray cluster: one actor a core, or one a GPU.

Ray is an optional extra. Actors are sent units and send back results; the store stays with the
process that started the run. An actor that dies is replaced, and its unit computed again.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from diffsplit.bench.compute import Done, Unit, Worker, failed
from diffsplit.bench.executors import DIED, LIVES
from diffsplit.bench.run import Execute
from diffsplit.errors import InputError, MissingDependencyError

__all__ = ["on_cluster"]


def on_cluster(address: str, device: str, workers: int | None = None) -> Execute:
    """An executor on a Ray cluster.

    Args:
        address: of the cluster, such as "auto", "ray://head:10001", or "local" for one that is
            started on this machine.
        device: of each actor; with "cuda" each has a GPU of its own.
        workers: actors at most; by default as many as there are cores, or GPUs.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: the cluster does not answer, or has nothing to compute on.
    """
    ray = _ray()
    resource = "GPU" if device.startswith("cuda") else "CPU"
    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_worker_niceness", "0")  # at 15 other processes spoil the times
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **(own if address == "local" else {}),
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"--ray {address}: the cluster does not answer ({error!s:.100}); start it with ray "
            "start, or give the address local."
        ) from error

    there = int(ray.cluster_resources().get(resource, 0))
    if not there:
        ray.shutdown()
        raise InputError(
            f"--ray {address}: the cluster has no {resource}, so that nothing would be computed; "
            "choose another --device."
        )

    def execute(units: Iterable[Unit]) -> Iterator[tuple[Unit, Done]]:
        try:
            yield from _results(ray, units, device, min(workers or there, there))
        finally:
            ray.shutdown()

    return execute


def _results(
    ray: Any, units: Iterable[Unit], device: str, workers: int
) -> Iterator[tuple[Unit, Done]]:
    on_gpu = device.startswith("cuda")
    share = {"num_cpus": 1, "num_gpus": int(on_gpu)}
    place = "cuda:0" if on_gpu else device  # an actor sees its own GPU alone, as the first
    actor = ray.remote(**share)(Worker)
    waiting, idle = deque(units), deque(actor.remote(place) for _ in range(workers))
    running: dict[Any, tuple[Unit, Any]] = {}
    deaths: dict[tuple[str, ...], int] = {}
    while waiting or running:
        while waiting and idle:
            worker, unit = idle.popleft(), waiting.popleft()
            running[worker.run.remote(unit)] = unit, worker
        for future in ray.wait(list(running))[0]:
            unit, worker = running.pop(future)
            try:
                done: Done = ray.get(future)
            except ray.exceptions.RayActorError:
                idle.append(actor.remote(place))
                deaths[unit.keys] = deaths.get(unit.keys, 0) + 1
                if deaths[unit.keys] < LIVES:
                    waiting.appendleft(unit)
                    continue
                done = failed(unit, DIED)
            else:
                idle.append(worker)
            yield unit, done


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "a cluster needs Ray: pip install 'diffsplit[cluster]', or use --workers on one "
            "machine."
        ) from error
    return ray
