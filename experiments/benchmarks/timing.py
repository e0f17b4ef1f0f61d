"""Fair timing: warm, interleaved, medians; wall and CPU seconds side by side."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Timed:
    """Median wall and CPU seconds of one call. CPU seconds count every thread: they compare with one-thread peers."""

    wall: float
    cpu: float
    repeats: int


def once(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds and the value of one call, waited for."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = jax.block_until_ready(call())
    return time.perf_counter() - wall, time.process_time() - cpu, value


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, Timed]:
    """Every call once to warm up, then round robin, so that a busy minute hurts all of them alike."""
    for call in calls.values():
        once(call)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu, _ = once(call)
            samples[name].append((wall, cpu))
    medians = {name: np.median(np.asarray(pairs), axis=0) for name, pairs in samples.items()}
    return {name: Timed(float(m[0]), float(m[1]), repeats) for name, m in medians.items()}
