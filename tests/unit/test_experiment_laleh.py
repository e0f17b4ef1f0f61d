"""Baselines of the lesions: exact curves are found again, vanished lesions have their own pool, nothing explodes."""

import numpy as np
import pytest

from experiments.laleh2022.baselines import LAWS, law_forecast, random_walk_forecast
from tumortwin.metrics import Asked, Series

DAYS = np.linspace(-7.0, 300.0, 8)
TIME = DAYS - DAYS[0]


def series(rows):
    values = np.asarray(rows, float)
    return Series(np.broadcast_to(DAYS[: values.shape[1]], values.shape), values, np.ones(values.shape, bool))


CURVES = {
    "exponential": lambda t: 0.02 * np.exp(-0.006 * t),
    "logistic": lambda t: 0.03 / (1 + 2.0 * np.exp(-0.015 * t)),
    "gompertz": lambda t: 0.01 * np.exp(np.log(3.0) * np.exp(-0.012 * t)),
    "general_bertalanffy": lambda t: 0.04 * (1 + (0.25 ** (1 / 3) - 1) * np.exp(-0.01 * t)) ** 3,
}


@pytest.mark.parametrize("law", LAWS)
def test_a_law_finds_its_own_curve_again(law):
    truth = CURVES[law]
    known = series([truth(TIME), np.full(8, 0.9)])
    asked = Asked(np.asarray([0, 0]), np.asarray([340.0, 380.0]), np.asarray([1, 2]))
    found = law_forecast(law, known, asked)[:, 0]
    np.testing.assert_allclose(found, truth(asked.day - DAYS[0]), rtol=2e-3)


def test_a_law_neither_explodes_nor_fails_on_a_lesion_that_is_gone():
    known = series([np.exp(np.linspace(-12.0, -1.0, 8)), np.zeros(8)])
    asked = Asked(np.asarray([0, 1]), np.asarray([2000.0, 2000.0]), np.asarray([1, 1]))
    for law in LAWS:
        found = law_forecast(law, known, asked)[:, 0]
        assert np.all((found >= 0.0) & (found <= known.values.max()))
        assert found[1] == 0.0


def test_the_random_walk_draws_increments_of_its_step_and_pool():
    known = series([[10.0, 20.0, 20.0], [40.0, 40.0, 80.0], [0.0, 0.0, 0.0], [6.0, 3.0, 0.0]])
    asked = Asked(np.asarray([0, 0, 2, 3]), np.zeros(4), np.asarray([1, 2, 1, 1]))
    found = random_walk_forecast(known, asked, rng=np.random.default_rng(0), draws=2000)
    floor = 2.5 / 6.0
    assert np.unique(found[0].round(6)).tolist() == np.unique(np.round([20.0, 40.0, 20.0 * floor], 6)).tolist()
    assert np.unique(found[1].round(6)).tolist() == np.unique(np.round([40.0, 20.0 * floor], 6)).tolist()
    assert np.all(found[2:] == 0.0)
    assert abs(np.mean(found[0] > 30.0) - 1 / 3) < 0.05  # 2, 1, 1, 2, .417, 1
