"""Kill -9 in the middle of NUTS on a patient's scans, then the same command: the same numbers, to the bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tumortwin.io import read_posterior, write_example_patient

ROOT = Path(__file__).parents[2]
PATIENCE = 400.0  # [s] on a busy machine
POLL = 0.02  # [s]
QUICK = [
    "patient=folder", "geometry.spacing=4.0", "geometry.bucket=4", "geometry.margin=4.0", "solver.max_step=30.0",
    "patient.plan.enabled=false", "~prior.mechanisms.proliferation.pattern", "cluster=local", "runtime.progress=off",
    "calibrator=nuts", "calibrator.chains=2", "calibrator.warmup=3", "calibrator.draws=9", "calibrator.chunk=1",
    "+calibrator.tree_depth=3", "+calibrator.laplace._target_=tumortwin.inference.LaplaceCalibrator",
    "+calibrator.laplace.map._target_=tumortwin.inference.MapCalibrator", "+calibrator.laplace.map.reweightings=0",
]  # fmt: skip


def start(folder: Path, runs: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
    line = ["calibrate", *QUICK, f"patient.path={folder / 'scans'}", f"paths.runs={folder / runs}"]
    command = [sys.executable, "-m", "tumortwin.cli", *line]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen) -> None:
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out.decode()


def chain_length(runs: Path) -> int:
    """Transitions a chain in the newest checkpoint; 0 while there is none with chains."""
    for file in runs.rglob("checkpoints/[!.]*.npz"):  # not the one that is being written
        with np.load(file) as kept:
            return int(kept["chain_z"].shape[1]) if "chain_z" in kept else 0
    return 0


@pytest.mark.slow
def test_a_killed_sampler_ends_with_the_same_numbers(tmp_path):
    write_example_patient(tmp_path / "scans")
    finish(start(tmp_path, "whole"))
    victim, end = start(tmp_path, "killed"), time.monotonic() + PATIENCE
    while not 2 <= chain_length(tmp_path / "killed"):
        assert victim.poll() is None and time.monotonic() < end
        time.sleep(POLL)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    reached = chain_length(tmp_path / "killed")
    assert victim.returncode == -signal.SIGKILL and 2 <= reached < 12
    (left,) = (tmp_path / "killed").rglob("provenance.json")
    assert not (left.parent / "DONE").exists() and not (left.parent / "posterior.zarr").exists()
    finish(start(tmp_path, "killed"))
    assert [p.parent for p in (tmp_path / "killed").rglob("DONE")] == [left.parent]
    (whole,) = (tmp_path / "whole").rglob("posterior.zarr")
    first, second = read_posterior(whole), read_posterior(left.parent / "posterior.zarr")
    assert set(first[0]) == set(second[0])
    for path, draws in first[0].items():
        np.testing.assert_array_equal(draws, second[0][path])
    np.testing.assert_array_equal(first[2]["log_density"], second[2]["log_density"])
