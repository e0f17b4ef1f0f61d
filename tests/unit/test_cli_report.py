"""From the files of a run to the report's data: what must not get lost on the way."""

import json
import math

import numpy as np

from tumortwin import cli_report
from tumortwin import report as r
from tumortwin.metrics import ForecastCase, baseline_forecasts, score_forecast
from tumortwin.report import _sentences as sentences
from tumortwin.report import _words as words
from tumortwin.runs import write_json


def _vanished(tmp_path):
    """scores.json of a twin that forecast no tumor where there was one, as it is stored and read again."""
    seen = np.zeros((6, 6, 6), bool)
    seen[2:4, 2:4, 2:4] = True
    nothing = np.zeros_like(seen)
    baselines = baseline_forecasts([seen], [0.0], 30.0, (1.0, 1.0, 1.0), radial_velocity=0.05, doubling_time=60.0)
    case = ForecastCase("t1gd", 30.0, seen, nothing, np.array([0.0, 1.0]), baselines)
    write_json(tmp_path / "scores.json", score_forecast([case], (1.0, 1.0, 1.0)))
    return json.loads((tmp_path / "scores.json").read_text())


def test_a_forecast_without_tumor_is_worse_and_is_said_so(tmp_path):
    scores = cli_report._scores(_vanished(tmp_path))
    (mine,) = [s for s in scores if (s.method, s.metric) == ("twin", "hd95")]
    assert math.isinf(words.metric_value(mine) or 0.0)
    visits = (r.Visit(0.0, {"t1gd": 8.0}), r.Visit(30.0, {"t1gd": 8.0}, hidden=True))
    data = r.ReportData("t", "q", r.PatientSummary("p", visits=visits), (r.Channel("t1gd", "core"),), scores=scores)
    said = [line for line in sentences.verdicts(data).worse if "HD95" in line]
    assert len(said) == 1 and "no tumor forecast against 0.00 mm (persistence)" in said[0]
    assert not any("HD95" in line for line in sentences.verdicts(data).better)
    page = r.write_report(data, tmp_path).read_text()
    assert "no tumor forecast" in page and "not defined" not in page.split("Every score")[1].split("</table>")[0]
