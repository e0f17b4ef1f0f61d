"""The contract refuses what cannot be drawn, and derives what it can."""

import numpy as np
import pytest

from tumortwin import report as r
from tumortwin.report import _figures_forecast as forecast
from tumortwin.report import _figures_parameters as parameters
from tumortwin.report import _sections as sections
from tumortwin.report import _style as style


def test_what_does_not_fit_together_is_refused() -> None:
    image = r.Image(np.zeros((2, 2, 2)), np.eye(4))
    days = np.arange(3.0)
    refused = [
        lambda: r.Image(np.zeros((2, 2)), np.eye(4)),
        lambda: r.Image(np.zeros((2, 2, 2)), np.full((4, 4), np.nan)),
        lambda: r.Anatomy(image, np.ones((3, 2, 2), dtype=bool)),
        lambda: r.Treatments(np.zeros(2), np.zeros(3)),
        lambda: r.PatientSummary("p", visits=(r.Visit(5.0), r.Visit(1.0))),
        lambda: r.VolumePrediction("c", days, days, days, days[:2]),
        lambda: r.VolumePrediction("c", days, days, days, days * np.nan),
        lambda: r.ParameterDraws("a.b", "b", "1", days, days, days[:2]),
    ]
    for make in refused:
        with pytest.raises(ValueError, match="required: .*received: "):
            make()


def test_volume_comes_from_the_mask_when_it_is_not_given() -> None:
    mask = r.Image(np.ones((2, 3, 4), dtype=bool), np.diag([1.0, 2.0, 3.0, 1.0]))
    data = r.ReportData("t", "q", r.PatientSummary("p"), (r.Channel("flair", "edema"),))
    assert data.volume_of(r.Visit(0.0, masks={"flair": mask}), "flair") == 24 * 6.0
    assert data.volume_of(r.Visit(0.0, {"flair": 5.0}, {"flair": mask}), "flair") == 5.0
    assert data.volume_of(r.Visit(0.0), "flair") is None


def test_weighted_volume_prediction_follows_its_weights() -> None:
    draws = np.stack([np.zeros(1000), np.random.default_rng(0).normal(size=1000)], axis=1)
    heavy = r.volume_prediction("c", np.array([0.0, 1.0]), draws, weights=np.exp(draws[:, 1]))
    plain = r.volume_prediction("c", np.array([0.0, 1.0]), draws)
    assert heavy.median[1] > plain.median[1] + 0.7
    assert (plain.lower <= plain.median).all() and (plain.median <= plain.upper).all()


def test_headline_day_prefers_the_last_hidden_scan() -> None:
    days = np.array([0.0, 50.0])
    volume = r.VolumePrediction("c", days, days, days, days)

    def data(visits: tuple[r.Visit, ...], day: float | None = None) -> r.ReportData:
        channels = (r.Channel("c", "c"),)
        return r.ReportData(
            "t",
            "q",
            r.PatientSummary("p", visits=visits),
            channels,
            forecast=r.Forecast(0.0, (volume,), headline_day=day),
        )

    assert data(()).headline_day == 50.0
    assert data((r.Visit(30.0, {"c": 1.0}, hidden=True),)).headline_day == 30.0
    assert data((r.Visit(30.0, {"c": 1.0}, hidden=True),), 40.0).headline_day == 40.0


def test_density_is_one_and_stays_inside_the_bounds_with_weights() -> None:
    rng = np.random.default_rng(0)
    draws = rng.uniform(0.0, 1.0, 4000)
    at = np.linspace(-0.5, 1.5, 2001)
    flat = parameters.density(draws, at, None, 0.0, 1.0)
    assert abs(np.trapezoid(flat, at) - 1.0) < 0.01
    assert flat[at < 0].max() == 0.0
    assert abs(flat[np.searchsorted(at, 0.02)] - 1.0) < 0.15  # no dip at the bound
    tilted = parameters.density(draws, at, draws, 0.0, 1.0)
    assert np.interp(0.8, at, tilted) > 3 * np.interp(0.2, at, tilted)


def test_narrowing_compares_intervals_with_weights() -> None:
    prior = np.linspace(-2.0, 2.0, 4001)
    weights = np.exp(-(prior**2) / (2 * 0.1**2))
    learned = r.ParameterDraws("a", "a", "1", prior, prior, weights)
    assert abs(parameters.narrowing(learned) - (1 - 2 * 1.96 * 0.1 / 3.8)) < 0.01
    assert parameters.narrowing_words(r.ParameterDraws("a", "a", "1", prior, prior)) == "little learned"


def test_a_truth_that_is_no_single_number_is_said_in_words() -> None:
    draws = np.linspace(0.01, 0.05, 101)
    one = r.ParameterDraws("a", "a", "1", draws, draws, truth=0.03)
    other = r.ParameterDraws("b", "b", "1", draws, draws, truth_words="0.0300 as a mean over the tumor")
    unknown = r.ParameterDraws("c", "c", "1", draws, draws)
    data = r.ReportData("t", "q", r.PatientSummary("p"), (), parameters=(one, other, unknown))
    assert [row[-1] for row in sections.parameter_table(data).rows] == ["0.0300", "0.0300 as a mean over the tumor", ""]


def test_volume_scale_is_logarithmic_only_for_a_wide_positive_range() -> None:
    days = np.array([0.0, 1.0])

    def wide(low: float, high: float) -> bool:
        curve = np.array([low, high])
        return forecast.uses_log_volume(r.VolumePrediction("c", days, curve, curve, curve), np.zeros(0))

    assert not wide(1000.0, 10000.0)
    assert wide(1000.0, 50000.0)
    assert not wide(0.0, 50000.0)


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    placed = style.spread(np.array([0.50, 0.10, 0.51, 0.49]), 0.1)
    assert np.diff(np.sort(placed)).min() > 0.099
    assert list(np.argsort(placed)) == [1, 3, 0, 2]
    assert placed[1] == pytest.approx(0.10)


@pytest.mark.parametrize("share", [[1.7, 2.4, 0.97], [-0.5, -0.2, 0.01], [0.98, 0.99, 1.0, 0.02, -3.0], [3.0] * 30])
def test_labels_beyond_the_ends_of_the_axis_do_not_cover_one_another(share: list[float]) -> None:
    """Clipped after being moved apart, two lines that leave the axis had their names on top of each other."""
    placed = style.spread(np.array(share), 0.08, 0.0, 1.0)
    assert placed.min() >= -1e-9 and placed.max() <= 1 + 1e-9
    assert np.diff(np.sort(placed)).min() > min(0.08, 1 / (len(share) - 1)) - 1e-6
    assert (np.diff(placed[np.argsort(share, kind="stable")]) > 0).all()


def test_the_names_of_two_baselines_above_the_axis_are_apart() -> None:
    figure = style.new_figure(60.0)
    axes = figure.subplots()
    axes.set_ylim(0.0, 10.0)
    labels = [(25.0, "persistence", "k"), (31.0, "exponential growth", "k"), (9.9, "twin", "b")]
    forecast._end_labels(axes, labels)
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert len(heights) == 3 and np.diff(heights).min() > 0.03
