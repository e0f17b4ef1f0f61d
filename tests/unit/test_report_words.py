"""Numbers and sentences of the report."""

import dataclasses
import math

import numpy as np
import pytest

from tumortwin import report as r
from tumortwin.geometry import Grid
from tumortwin.inference import Posterior
from tumortwin.metrics import quantile
from tumortwin.report import _cohort_sections as cohorts
from tumortwin.report import _sentences as sentences
from tumortwin.report import _words as words
from tumortwin.twin import Forecast

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "like", "expected"),
    [
        (12.345, None, "12.3"),
        (0.01234, None, "0.0123"),
        (1234.5, None, "1234"),
        (0.758, 2.45, "0.76"),
        (-0.48, 2.45, f"{MINUS}0.48"),
        (-0.0001, 2.0, "0.00"),
        (0.0, None, "0.00"),
        (math.nan, None, "not defined"),
        (None, None, "not defined"),
        (3e-9, None, "3.00e-09"),
    ],
)
def test_number(value: float | None, like: float | None, expected: str) -> None:
    assert words.number(value, like=like) == expected


def test_interval_uses_words_when_a_sign_is_in_the_way() -> None:
    assert words.interval(8.12, 17.94) == f"8.1{DASH}17.9"
    assert words.interval(-0.2, 1.4) == f"{MINUS}0.20 to 1.40"


def test_percent_is_never_falsely_certain() -> None:
    said = [words.percent(p) for p in (0.0, 0.001, 0.5, 0.999, 1.0)]
    assert said == ["0 %", "less than 1 %", "50 %", "more than 99 %", "100 %"]


def test_every_room_has_the_same_quantiles() -> None:
    """A small sample, of which the usual definitions say different things; by hand for the lower end."""
    draws = np.array([3.0, 1.0, 10.0, 2.0, 4.0])
    expected = quantile(draws, np.array([0.025, 0.5, 0.975]))
    assert expected.tolist() == pytest.approx([1.0, 3.0, 10.0])  # midpoints of the weights are at 0.1, 0.3, ... 0.9
    assert float(quantile(draws, 0.2)) == pytest.approx(1.5) and np.quantile(draws, 0.2) == pytest.approx(1.8)
    median, low, high = words.summarize(draws)
    assert [low, median, high] == expected.tolist()
    posterior = Posterior({"a": draws[None]}, None, {}, "")
    assert [float(posterior.quantile("a", q)) for q in (0.025, 0.5, 0.975)] == expected.tolist()
    predicted = r.volume_prediction("c", np.array([0.0]), draws[:, None])
    assert [float(predicted.lower[0]), float(predicted.median[0]), float(predicted.upper[0])] == expected.tolist()
    blank = np.zeros((1, 1, 1, 1))
    grid = Grid.from_spacing((1, 1, 1), (1.0, 1.0, 1.0))
    volume = {"c": draws[:, None]}
    found = Forecast(
        (0.0,), grid, volume, volume, volume, draws[:, None], draws[:, None], blank, blank, {"c": blank}, "c", {}
    )
    assert found.interval("c")[:, 0].tolist() == expected.tolist()
    gain = plan(draws)
    said = sentences.compare(gain, gain.standard, gain.recommended)
    assert [said.low, said.median, said.high] == pytest.approx((expected / 1000.0).tolist())


def forecast_data(last: float, median: float, low: float, high: float, hidden: float | None = None) -> r.ReportData:
    days = np.array([0.0, 60.0])
    curves = (np.array([last, v]) for v in (median, low, high))
    visits = [r.Visit(30.0, {"t1gd": last})] + ([r.Visit(60.0, {"t1gd": hidden}, hidden=True)] if hidden else [])
    return r.ReportData(
        "t",
        "q",
        r.PatientSummary("p", visits=tuple(visits)),
        (r.Channel("t1gd", "enhancing tumor"),),
        forecast=r.Forecast(30.0, (r.VolumePrediction("t1gd", days, *curves),)),
    )


def test_answer_says_the_numbers_of_the_data_with_their_interval() -> None:
    line = sentences.answer(forecast_data(9900.0, 12300.0, 8100.0, 17900.0)).line
    assert line == (
        f"In 30 days (day 60) the enhancing tumor is expected at 12.3 mL (95 % prediction interval 8.1{DASH}17.9); "
        "it measured 9.9 mL on day 30."
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (10000.0, 17900.0, "growth is expected"),
        (1000.0, 9000.0, "shrinkage is expected"),
        (8100.0, 17900.0, "but not certain"),
    ],
)
def test_direction_is_hedged_as_the_interval_is(low: float, high: float, said: str) -> None:
    told = sentences.answer(forecast_data(9900.0, (low + high) / 2, low, high)).paragraphs[0][1]
    assert said in told


def test_a_hidden_scan_outside_the_interval_is_said() -> None:
    told = " ".join(
        text for _, text in sentences.answer(forecast_data(9900.0, 12300.0, 8100.0, 17900.0, 20000.0)).paragraphs
    )
    assert "measured 20.0 mL, outside the interval" in told


@pytest.mark.parametrize(("hidden", "said"), [(20000.0, True), (12000.0, False), (None, False)])
def test_sound_sampling_is_not_praised_over_a_forecast_that_failed(hidden: float | None, said: bool) -> None:
    trust = dict(sentences.answer(forecast_data(9900.0, 12300.0, 8100.0, 17900.0, hidden)).paragraphs)["Trust"]
    assert ("the hidden volume lies outside the 95 % interval" in trust) == said


def test_a_cohorts_best_baseline_by_each_measure_is_named() -> None:
    """By CRPS a regressor may be best, by mean absolute error persistence: the twin is held to both."""
    scores = (
        r.MethodScore("twin", 9.2, 6.0),
        r.MethodScore("persistence", 8.2, 8.2),
        r.MethodScore("regressor", 10.0, 7.0, worse_by=(-1.0, -2.0, -0.1)),
    )
    data = r.CohortReport("t", "q", "c", "diameter", "mm", 20, 100, 40, {}, scores=scores)
    found = cohorts.cohort_answer(data)
    baselines = dict(found.paragraphs)["Baselines"]
    assert "better than the best baseline, regressor: 6.00 against 7.00 mm" in baselines
    assert "In mean absolute error it is worse than the best, persistence: 9.20 against 8.20 mm." in baselines
    tile = cohorts.cohort_headlines(data)[-1]
    assert (tile.value, tile.label) == ("8.20", "by persistence, the best baseline in this")


def test_what_is_beyond_the_edge_stands_in_the_answer() -> None:
    data = dataclasses.replace(forecast_data(9900.0, 12300.0, 8100.0, 17900.0), beyond="So far.")
    assert dict(sentences.answer(data).paragraphs)["Beyond the edge"] == "So far."


def scored(**twin_and_baseline: tuple[float | None, float | None]) -> r.ReportData:
    data = forecast_data(9900.0, 12300.0, 8100.0, 17900.0)
    pairs = [(m, s) for m, values in twin_and_baseline.items() for s in zip(("twin", "dilation"), values, strict=True)]
    scores = tuple(r.Score(method, metric, value, "t1gd", 60.0) for metric, (method, value) in pairs)
    return r.ReportData(data.title, data.question, data.patient, data.channels, scores=scores)


def test_direction_of_each_metric_and_the_worse_is_named() -> None:
    said = sentences.verdicts(scored(dice=(0.8, 0.9), hd95=(2.0, 5.0), ccc=(0.5, 0.5), crps=(100.0, None)))
    assert len(said.worse) == 1 and "Dice" in said.worse[0] and "0.800 against 0.900" in said.worse[0]
    assert len(said.better) == 1 and "2.00 against 5.00 mm" in said.better[0]
    assert len(said.equal) == 1


def test_scores_in_volume_are_printed_in_ml() -> None:
    assert "0.50 against 1.00 mL" in sentences.verdicts(scored(crps=(500.0, 1000.0))).better[0]


def test_a_failed_check_of_the_inference_is_named() -> None:
    data = forecast_data(9900.0, 12300.0, 8100.0, 17900.0)
    for values, said in (({"k_hat": 0.9, "ess": 900.0}, "k-hat is 0.900"), ({"k_hat": 0.5, "ess": 900.0}, "passed")):
        judged = r.ReportData("t", "q", data.patient, data.channels, diagnostics=r.Diagnostics(values))
        assert said in sentences.trust_sentence(judged)
    assert "caution" in sentences.trust_sentence(data)
    nan = r.ReportData("t", "q", data.patient, data.channels, diagnostics=r.Diagnostics({"r_hat": math.nan}))
    assert "failed" in sentences.trust_sentence(nan)


def plan(gain: np.ndarray, **changes: object) -> r.Plan:
    base = np.full(gain.size, 10000.0)
    two = np.full(6, 2.0)
    return r.Plan(
        r.Regimen("recommended", two, 30.0, base - gain),
        r.Regimen("standard of care", two, 30.0, base),
        "volume on day 180",
        "mm^3",
        **changes,  # type: ignore[arg-type]
    )


def test_benefit_is_paired_and_its_absence_is_said() -> None:
    gain = np.concatenate([np.full(60, 1000.0), np.full(40, -500.0)])
    said = " ".join(sentences.plan_sentences(plan(gain)))
    assert "helps in 60 % of the draws; in 40 % there is no benefit" in said
    assert "same total dose of 60.0 Gy" in said and "lower than standard of care by 1.00 mL" in said


def test_a_gain_that_is_gone_at_equal_bed_is_called_bought() -> None:
    def said(left: float) -> str:
        fair = r.Regimen("at equal BED", np.full(6, 2.0), 30.0, np.full(40, 10000.0 - left))
        return sentences.plan_sentences(plan(np.full(40, 1000.0), benefit_from=500.0, equal_bed=fair))[-1]

    assert said(900.0).endswith("helps by more than 0.500 mL in 100 % of the draws.")
    assert said(100.0).endswith("in 0 % of the draws: what is gained is bought with normal-tissue dose.")


def test_a_harmful_plan_is_called_so_and_higher_may_be_better() -> None:
    harm = " ".join(sentences.plan_sentences(plan(np.full(50, -700.0))))
    assert "higher than standard of care by 0.700 mL" in harm and "helps in 0 %" in harm
    better = " ".join(sentences.plan_sentences(plan(np.full(50, -700.0), lower_is_better=False)))
    assert "higher than standard of care by 0.700 mL" in better and "helps in 100 %" in better


def test_gain_below_the_threshold_is_no_benefit() -> None:
    chosen = plan(np.full(10, 300.0), benefit_from=500.0)
    assert sentences.compare(chosen, chosen.standard, chosen.recommended).p_benefit == 0.0
    assert "helps by more than 0.500 mL in 0 % of the draws" in " ".join(sentences.plan_sentences(chosen))


def test_a_smallest_gain_may_be_a_share_of_the_outcome() -> None:
    chosen = plan(np.asarray([100.0, 900.0]), benefit_share=0.05)  # of 10 mL
    assert sentences.compare(chosen, chosen.standard, chosen.recommended).p_benefit == 0.5
    assert "helps by more than 5 % in 50 % of the draws" in " ".join(sentences.plan_sentences(chosen))


def test_infinite_distances_are_ranked_and_two_of_them_are_level() -> None:
    inf = math.inf
    assert "2.00 mm against no tumor forecast" in sentences.verdicts(scored(hd95=(2.0, inf))).better[0]
    assert "no tumor forecast against 2.00 mm" in sentences.verdicts(scored(hd95=(inf, 2.0))).worse[0]
    level = sentences.verdicts(scored(hd95=(inf, inf)))
    assert len(level.equal) == 1 and not level.better and not level.worse
    assert words.score_words(inf, tumor_seen=False) == "tumor forecast, none seen"


@pytest.mark.parametrize(
    ("name", "bad", "said"),
    [
        ("map_converged", 0.0, "most probable values converged: no"),
        ("at_mode", 0.0, "no, wanted yes"),
        ("sample_reliable", 0.0, "reliable is no"),
        ("failed_solves", 3.0, "is 3.00, wanted 0"),
        ("divergences", 2.0, "is 2.00, wanted 0"),
        ("k_hat", None, "is not defined, wanted a number"),
    ],
)
def test_every_check_of_the_inference_is_judged(name: str, bad: float | None, said: str) -> None:
    good = {"k_hat": 0.4, "ess": 900.0, "r_hat": 1.0, "divergences": 0.0, "failed_solves": 0.0}
    good |= {"map_converged": 1.0, "at_mode": 1.0, "sample_reliable": 1.0, "map_starts_agreeing": 1.0}
    data = forecast_data(9900.0, 12300.0, 8100.0, 17900.0)

    def told(values: dict) -> str:
        return sentences.trust_sentence(dataclasses.replace(data, diagnostics=r.Diagnostics(values)))

    assert "passed" in told(good)
    assert "failed" in told({**good, name: bad}) and said.replace(": ", " is ") in told({**good, name: bad})


def test_a_statement_is_said_in_the_words_of_the_figures():
    labels = {"mechanisms.growth.rate": "growth rate", "initial.age": "age", "observation.flair.shift": "outlines"}
    said = words.statements(
        "Only jointly identified: the data fix initial.age * growth.rate^0.5 (15 %) but not growth.rate (68 %). "
        "The data say little about flair.shift[0, 1] (78-98 %), mechanisms.growth.rate_limit (90 %).",
        labels,
    )
    assert said == [
        "Only jointly identified: the data fix age * (growth rate)^0.5 (15 %) but not growth rate (68 %).",
        "The data say little about outlines[0, 1] (78-98 %), mechanisms.growth.rate_limit (90 %).",
    ]
    assert words.statements("nothing is known.", {}) == ["Nothing is known."]
