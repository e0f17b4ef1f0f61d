"""Low-grade glioma: what is done about surgery and radiotherapy, the split, the weights and the forecast."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import lognorm, norm

from experiments.delobel2023.model import NOISES, SHARED, Design, Weighed, design, nearer
from experiments.delobel2023.record import MEAN_LEVEL, RADIOTHERAPY, Records, records_of
from tumortwin._errors import InputError
from tumortwin.io import DoseHistory, Readings, Table


def table_of(days: list[float], volumes: list[float], surgery: float, courses: list[float], rays: list[float]) -> Table:
    """One patient; volumes in mm^3."""
    value, day = np.array(volumes), np.array(days)
    readings = Readings("mm^3", value, value, value, np.ones(value.size, bool))

    def dose(edges: list[float]) -> DoseHistory:
        return DoseHistory("1", (np.array(edges),), (np.array([1.0, 0.0] * (len(edges) // 2)),))

    return Table(
        ("x",),
        np.zeros(day.size, int),
        day,
        {"volume": readings},
        {"temozolomide": dose(courses), "radiotherapy": dose(rays)},
        {"surgery_day": np.array([surgery])},
        (),
        Path("x.csv"),
    )


DAYS = [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]
VOLUMES = [40e3, 42e3, 44e3, 30e3, 33e3, 36e3]


def test_the_last_two_are_hidden_and_drop_forgets_them() -> None:
    records = records_of(table_of(DAYS, VOLUMES, -50.0, [], []))
    np.testing.assert_allclose(records.known[0], [40.0, 42.0, 44.0, 30.0])
    np.testing.assert_allclose(records.hidden[0], [33.0, 36.0])
    np.testing.assert_allclose(records.hidden_days[0], [400.0, 500.0])
    earlier = records_of(table_of(DAYS, VOLUMES, -50.0, [], []), drop=1)
    np.testing.assert_allclose(earlier.hidden[0], [30.0, 33.0])


def test_readings_before_a_surgery_are_left_out_and_noted() -> None:
    records = records_of(table_of(DAYS, VOLUMES, 50.0, [150.0, 250.0], []))
    np.testing.assert_allclose(records.known_days[0], [0.0, 100.0, 200.0])
    np.testing.assert_allclose(records.history.edges[0], [50.0, 150.0])
    assert "surgery on day 50" in records.notes[0]


def test_nothing_comparable_is_refused() -> None:
    with pytest.raises(InputError, match="after the last surgery"):
        records_of(table_of(DAYS, VOLUMES, 450.0, [], []))


def test_radiotherapy_adds_to_the_drug() -> None:
    records = records_of(table_of(DAYS, VOLUMES, np.nan, [100.0, 300.0], [250.0, 350.0]))
    np.testing.assert_allclose(records.history.edges[0], [100.0, 250.0, 300.0, 350.0])
    expected = MEAN_LEVEL * np.array([0.0, 1.0, 1.0 + RADIOTHERAPY, RADIOTHERAPY, 0.0])
    np.testing.assert_allclose(records.history.levels[0], expected)
    assert records.irradiated[0].all()


@pytest.fixture(scope="module")
def weighed() -> tuple[Records, Design, Weighed]:
    records = records_of(table_of(DAYS, VOLUMES, np.nan, [150.0, 250.0], []))
    chosen = design(4, 8)
    return records, chosen, Weighed(records, chosen)


def test_weights_are_bayes_on_the_design(weighed: tuple[Records, Design, Weighed]) -> None:
    records, _, found = weighed
    known = records.known[0]
    curves = found.curves[:, 0, :, 1 : known.size]
    each = np.array([lognorm.pdf(known[1:], s=noise, scale=curves).prod(axis=-1) for noise in NOISES])
    np.testing.assert_allclose(found.weight, each.mean(axis=2) / each.mean(axis=2).sum(), rtol=1e-9)
    many = found.draws(0, 20_000, np.random.default_rng(0))
    mean = (each[..., None] * found.curves[:, 0]).sum(axis=(0, 1, 2)) / each.sum()
    np.testing.assert_allclose(many.curve.mean(axis=0), mean, rtol=1e-3)


def test_the_curve_starts_at_the_first_volume(weighed: tuple[Records, Design, Weighed]) -> None:
    records, _, found = weighed
    np.testing.assert_allclose(found.curves[:, :, :, 0], records.known[0][0], rtol=1e-12)


def test_a_forecast_knows_no_hidden_volume(weighed: tuple[Records, Design, Weighed]) -> None:
    records, chosen, found = weighed
    poisoned = dataclasses.replace(records, hidden=[7.0 * h for h in records.hidden])
    other = Weighed(poisoned, chosen)
    one, two = (w.forecast(0, 50, np.random.default_rng(2), carried=True) for w in (found, other))
    np.testing.assert_array_equal(one, two)


def test_carried_forecasts_begin_at_the_last_volume(weighed: tuple[Records, Design, Weighed]) -> None:
    """The median ratio to the forecast from the curve is last volume / curve there."""
    records, _, found = weighed
    rng = [np.random.default_rng(5) for _ in range(3)]
    carried = np.median(found.forecast(0, 4000, rng[0], carried=True), axis=0)
    drawn = found.draws(0, 4000, rng[1]).curve
    size = records.known[0].size
    expected = np.median(records.known[0][-1] * drawn[:, size:] / drawn[:, size - 1 : size], axis=0)
    np.testing.assert_allclose(carried, expected, rtol=0.03)


class Known:
    """Stands for weights whose posterior is known: normal, 1.5 spreads above the prior's center, .3 spreads wide."""

    def __init__(self, chosen: Design) -> None:
        center, spread = np.array([(np.log(m), s) for m, s in SHARED.values()]).T
        unit = (chosen.shared - center) / spread
        self.unit = unit
        ratio = norm.logpdf(unit, 1.5, 0.3) - norm.logpdf(unit)
        self.log_weight = ratio.sum(axis=1) + chosen.log_importance


def test_rounds_find_a_narrow_posterior() -> None:
    """More nodes carry the weight in each round, and the evidence is right: the ratio integrates to 1."""
    chosen = design(512, 4)
    carriers = []
    for _ in range(4):
        known = Known(chosen)
        weight = np.exp(known.log_weight - known.log_weight.max())
        weight /= weight.sum()
        carriers.append(1.0 / np.sum(weight**2))
        chosen = nearer(known, chosen)  # type: ignore[arg-type]
    assert carriers[0] < 5.0 and carriers[-1] > 100.0
    last = Known(chosen)
    np.testing.assert_allclose(np.exp(last.log_weight).mean(), 1.0, rtol=0.1)
    assert np.exp(chosen.log_importance).max() < 5.05
    weight = np.exp(last.log_weight) / np.exp(last.log_weight).sum()
    np.testing.assert_allclose(weight @ last.unit, 1.5, atol=0.05)
