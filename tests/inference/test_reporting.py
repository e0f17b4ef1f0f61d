"""Whatever the calibrator, its posterior can be stored, read and reported."""

import html

import jax
import linear_case as linear
import numpy as np
import pytest

from tumortwin import cli_report
from tumortwin import report as r
from tumortwin.geometry import Grid
from tumortwin.inference import LaplaceCalibrator, MapCalibrator, NutsCalibrator, PsisCalibrator, calibrate
from tumortwin.io import read_posterior, write_posterior
from tumortwin.treatments import Schedule
from tumortwin.twin import Patient

CALIBRATORS = [
    MapCalibrator(),
    LaplaceCalibrator(draws=50),
    PsisCalibrator(laplace=LaplaceCalibrator(), batch=200, chunk=100, least_effective=50.0),
    NutsCalibrator(warmup=20, draws=20, chunk=20),
]


def nobody() -> Patient:
    """A patient without scans."""
    cube = np.ones((2, 2, 2), bool)
    return Patient("p", Grid.from_spacing((2, 2, 2), (1.0, 1.0, 1.0)), cube, cube, {}, cube, (), Schedule())


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda c: type(c).__name__)
def test_every_posterior_can_be_reported(calibrator, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_report, "PARAMETERS", {"offset": ("offset", ""), "slope": ("slope", "")})
    problem, name = linear.problem(), type(calibrator).__name__
    posterior = calibrate(problem, calibrator, key=jax.random.key(0))
    attrs = {"statement": posterior.statement, "diagnostics": posterior.diagnostics, "units": {}, "calibrator": name}
    stats = {"log_weight": np.log(posterior.weights)}
    write_posterior(tmp_path / "posterior.zarr", posterior.draws, posterior.prior_draws, stats, attrs)
    stored = read_posterior(tmp_path / "posterior.zarr")
    patient = r.PatientSummary("p", visits=(r.Visit(0.0, {"t1gd": 1.0}),))
    data = r.ReportData(
        "t",
        "q",
        patient,
        (r.Channel("t1gd", "core"),),
        parameters=cli_report._parameters(stored, nobody()),
        diagnostics=cli_report._diagnostics(stored, nobody()),
    )
    spread = {p.label: float(np.std(p.prior)) for p in data.parameters}
    assert spread == pytest.approx({"offset": linear.PRIOR_SD[0], "slope": linear.PRIOR_SD[1]}, rel=0.5)
    page = html.unescape(r.write_report(data, tmp_path).read_text())
    assert ("one value, no interval" in page) == (name == "MapCalibrator")
    assert "What the scans taught" in page and posterior.statement.split(".")[0] in page
