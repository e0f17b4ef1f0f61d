"""The questions about real scans, asked on a grid too coarse to answer them: what is read, forecast and written."""

import json
from pathlib import Path

import pytest

from tumortwin import cli_jobs
from tumortwin._errors import InputError
from tumortwin.cli import main
from tumortwin.io import find_data_root

COARSE = [
    "geometry.spacing=6.0", "geometry.bucket=4", "solver.max_step=30.0", "calibrator.batch=64", "calibrator.chunk=64",
    "calibrator.rounds=2", "draws=4", "patient.plan.enabled=false", "runtime=ci",
]  # fmt: skip


def needs(folder: str) -> None:
    """Skips where a data set is absent."""
    try:
        present = (find_data_root(None) / folder).is_dir()
    except InputError:
        present = False
    if not present:
        pytest.skip(f"no public data: {folder} is absent")


def reproduced(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The results of a question, whatever its verdicts."""
    monkeypatch.setattr(cli_jobs, "_prepare", lambda config: None)  # JAX stays as the tests have it
    assert main(["reproduce", name, *COARSE, f"paths.runs={folder}"]) in (0, 1)
    (file,) = folder.rglob("results.json")
    return {row["name"]: row["value"] for row in json.loads(file.read_text())}


@pytest.mark.slow
@pytest.mark.data
def test_a_hidden_scan_is_forecast_beside_every_baseline(tmp_path, monkeypatch):
    needs("gbm_brain_tumor_progression")
    found = reproduced("glioma_progression", tmp_path, monkeypatch)
    for who in ("twin", "persistence", "dilation", "exponential_growth"):
        assert 0.0 <= found[f"p01_{who}_dice"] <= 1.0 and found[f"p01_{who}_crps"] > 0.0
    assert found["p01_persistence_dice"] == pytest.approx(0.57, abs=0.05)  # .574 on the grid of the scans
    assert found["p01_twin_volume_low"] < found["p01_twin_volume_median"] < found["p01_twin_volume_high"]


@pytest.mark.slow
@pytest.mark.data
def test_one_scan_identifies_rate_times_age_only(tmp_path, monkeypatch):
    needs("tcga_lgg_static")
    found = reproduced("glioma_tcga", tmp_path, monkeypatch)
    shares = {name: found[f"log_sd_share_{name}"] for name in ("D", "rho", "age", "rho_age")}
    assert 0.0 < shares["rho_age"] < 0.5 * min(shares["rho"], shares["age"])
    assert found["volume_beyond_edge_density_over_0.01"] > found["volume_beyond_edge_density_over_0.16"] > 0.0
