"""Where units are computed: in this process, or in several on this machine.

Each executor yields what came of every unit, in the order in which it is finished. A process that
dies loses nothing but the time that it spent on its last unit.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from diffsplit.bench.compute import Done, Unit, Worker, failed

__all__ = ["DIED", "LIVES", "in_processes", "in_this_process"]

LIVES = 2
"""How many processes a unit may take with it before it is given up."""
DIED = "The process that computed this died, probably because it had too little memory."


def in_this_process(units: Iterable[Unit], device: str) -> Iterator[tuple[Unit, Done]]:
    """One after the other, with as many threads as PyTorch takes."""
    worker = Worker(device)
    for unit in units:
        yield unit, worker.run(unit)


_worker: Worker | None = None  # of a process that `in_processes` started


def _start(devices: Any) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _worker = Worker(devices.get())


def _end_with_parent() -> None:
    """End this process when the one that started it was killed: nobody takes its results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(unit: Unit) -> Done:
    assert _worker is not None  # `_start` made it
    return _worker.run(unit)


def in_processes(units: Iterable[Unit], workers: int, device: str) -> Iterator[tuple[Unit, Done]]:
    """In several processes with one thread each; on GPUs, in turn on all of them.

    When a process dies, its unit is computed again in a new one. Which of those under way killed
    it is not known; so they are tried one at a time, and one that kills a process again failed.
    """
    waiting, suspects = deque(units), deque[Unit]()
    deaths: dict[tuple[str, ...], int] = {}
    while waiting or suspects:
        running: dict[Future[Done], Unit] = {}
        pool = _pool(1 if suspects else workers, device)
        queue, most = (suspects, 1) if suspects else (waiting, workers)
        try:
            while queue or running:
                while queue and len(running) < most:
                    running[pool.submit(_run, queue[0])] = queue[0]
                    queue.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done = future.result()
                    yield running.pop(future), done
        except BrokenProcessPool:
            for unit in running.values():
                deaths[unit.keys] = deaths.get(unit.keys, 0) + 1
                if deaths[unit.keys] >= LIVES and most == 1:
                    yield unit, failed(unit, DIED)
                else:
                    suspects.append(unit)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int, device: str) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    devices: Any = context.Queue()
    count = torch.cuda.device_count() if device == "cuda" else 0
    for i in range(workers):
        devices.put(f"cuda:{i % count}" if count else device)
    return ProcessPoolExecutor(workers, context, _start, (devices,))
