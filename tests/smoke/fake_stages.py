"""Two quick stages that stand for `tumortwin.cli_stages` in tests; they count their calls and can hang on demand.

FAKE_CALLS names the file of calls; FAKE_HANG the seed whose second stage writes half a file and waits to be killed,
with FAKE_COMPILES while a thread keeps XLA busy.
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from tumortwin._errors import InputError
from tumortwin.runs import Run

_HANG = 600.0  # [s]
_UNDER_WAY = 2.0  # [s] until a compilation has begun


def data_files(config: DictConfig) -> Sequence[Path]:
    """The patient's file when there is one."""
    return [Path(config.patient.path)] if config.patient.path else []


def _compile_forever() -> None:
    import jax
    import jax.numpy as jnp

    count = 0
    while True:
        count += 1

        def program(x: jax.Array, count: int = count) -> jax.Array:
            for i in range(200):
                x = jnp.sin(x * (i + count)) + x[::-1]
            return x

        jax.jit(program)(jnp.ones(8)).block_until_ready()


def _called(config: DictConfig, stage: str) -> None:
    with open(os.environ["FAKE_CALLS"], "a", encoding="utf-8") as handle:
        handle.write(f"{config.seed} {stage}\n")


def _hangs(config: DictConfig) -> bool:
    return os.environ.get("FAKE_HANG") == str(config.seed)


def run_calibrate(config: DictConfig, run: Run) -> None:
    """Writes first.json and second.json, and their sum as the result."""
    with run.stage("first", outputs=["first.json"]) as stage:
        if stage.needed:
            _called(config, "first")
            run.metrics(0, value=config.seed)
            run.write_json("first.json", 10 * config.seed)
    with run.stage("second", outputs=["second"]) as stage:
        if stage.needed:
            _called(config, "second")
            with run.writing("second") as path:
                path.mkdir()
                (path / "part").write_text("half")
                if _hangs(config):
                    if os.environ.get("FAKE_COMPILES"):
                        threading.Thread(target=_compile_forever, daemon=True).start()
                        time.sleep(_UNDER_WAY)
                    _called(config, "hanging")
                    time.sleep(_HANG)
                (path / "part").write_text("whole")
    run.write_results([{"name": "sum", "value": 10 * config.seed + 1, "unit": "1"}])


def run_twin(config: DictConfig, run: Run) -> None:
    """Finds its input bad."""
    del config, run
    raise InputError(file="scan.nii.gz", required="a 3-D image", received="4-D", advice="one volume")


def run_forecast(config: DictConfig, run: Run) -> None:
    """Needs what an earlier run has left."""
    run.write_json("forecast.json", run.source("first.json").read_text())
    run.write_results([{"name": "patient", "value": config.patient.id, "unit": "1"}])
