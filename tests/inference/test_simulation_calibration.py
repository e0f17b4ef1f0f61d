"""Ranks of truths under a calibrator that is right, and under ones that are too sure, biased, or late."""

import dataclasses

import jax
import linear_case as linear
import numpy as np
import pytest
from scipy import stats

from tumortwin.inference import AbstractCalibrator, Posterior, Problem, simulation_based_calibration, thinned_ranks


class Exact(AbstractCalibrator):
    """Draws from the closed form, its spread multiplied by `width` and moved by `shift` standard deviations."""

    width: float = 1.0
    shift: float = 0.0
    weighted: bool = False

    def init(self, problem, *, key):
        return {"key": np.asarray(jax.random.key_data(key))}

    def step(self, problem, state):
        return state

    def terminate(self, problem, state):
        return True

    def progress(self, problem, state):
        return 1, 1

    def postprocess(self, problem, state):
        assert isinstance(problem, Problem)
        mean, covariance = linear.exact(problem)
        rng = np.random.default_rng(state["key"])
        factor = np.linalg.cholesky(covariance)
        stretch = 1.5 if self.weighted else 1.0
        standard = rng.normal(size=(1, 1500, 2)) * stretch
        log_weights = None
        if self.weighted:
            log_weights = np.sum(stats.norm.logpdf(standard) - stats.norm.logpdf(standard, scale=stretch), axis=-1)
            log_weights -= np.logaddexp.reduce(log_weights, axis=None)
        draws = mean + self.width * standard @ factor.T + self.shift * np.sqrt(np.diag(covariance))
        named = {"offset": draws[..., 0], "slope": draws[..., 1]}
        return Posterior(named, log_weights, {"ess": 1500.0}, "")


def simulate(key):
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    truth = linear.PRIOR_MEAN + linear.PRIOR_SD * np.random.default_rng(seed).normal(size=2)
    problem = linear.problem(seed=seed + 1, truth=tuple(truth))
    return problem, {"offset": truth[0], "slope": truth[1], "difference": truth[0] - truth[1]}


def difference(problem, posterior, key):
    return {"difference": posterior.draws["offset"] - posterior.draws["slope"]}


def study(calibrator, n=120, **settings):
    return simulation_based_calibration(
        simulate, calibrator, n, quantities=difference, key=jax.random.key(0), **settings
    )


NAMES = ("offset", "slope", "difference")


@pytest.fixture(scope="module")
def right():
    return study(Exact())


def test_ranks_under_the_right_posterior_are_uniform_and_intervals_hold(right):
    assert right.simulations == 120
    assert right.uniform(NAMES) == dict.fromkeys(NAMES, True)
    assert sum(right.histogram("offset")[0]) == 120
    ranks = np.concatenate([right.ranks[name] for name in NAMES])
    assert ranks.min() >= 0 and ranks.max() <= 99
    for name in NAMES:
        assert right.coverage(name).low < 0.95 < right.coverage(name).high
    assert study(Exact(weighted=True), 60).uniform(NAMES) == dict.fromkeys(NAMES, True)


def test_a_posterior_that_is_too_sure_too_unsure_or_biased_is_caught(right):
    proud, shy, off = study(Exact(width=0.4), 60), study(Exact(width=3.0), 60), study(Exact(shift=1.0), 60)
    for wrong in (proud, shy, off):
        assert not any(wrong.uniform(NAMES[:2]).values())
    outer = lambda found: found.histogram("slope")[0][[0, -1]].sum()  # noqa: E731
    assert outer(proud) > outer(right) > 0 and outer(shy) < 0.25 * outer(right)  # of half as many
    assert proud.coverage("slope").high < 0.9 and off.coverage("slope").share < 0.95
    # The level is divided by the number of quantities.
    p = min(right.histogram(name)[1] for name in NAMES)
    assert set(right.uniform(NAMES, level=3 * p * 1.01).values()) == {True, False}
    assert set(right.uniform(NAMES, level=3 * p * 0.99).values()) == {True}


class Memory:
    """A checkpoint in memory that refuses to save after some calls."""

    def __init__(self):
        self.kept, self.saves = {}, 0

    def save(self, name, arrays):
        self.kept[name], self.saves = {k: v.copy() for k, v in arrays.items()}, self.saves + 1

    def load(self, name):
        return self.kept.get(name)


def test_a_study_is_resumed_and_a_longer_one_holds_a_shorter_one(right):
    memory = Memory()
    study(Exact(), 7, checkpoint=memory)
    done = []
    again = study(Exact(), 12, checkpoint=memory, progress=lambda i, n: done.append((i, n)))
    assert done == [(i, 12) for i in range(8, 13)] and memory.saves == 12
    for name in NAMES:
        np.testing.assert_array_equal(again.ranks[name], right.ranks[name][:12])
        np.testing.assert_array_equal(again.probabilities[name], right.probabilities[name][:12])
    assert study(Exact(), 5, checkpoint=memory).simulations == 5


def test_ranks_of_known_draws():
    drawn = {"x": np.arange(99.0)[None], "tied": np.zeros((1, 99)), "pair": np.zeros((1, 99, 2))}
    given = Posterior(drawn, None, {}, "")
    truth = {"x": 30.5, "tied": 0.0, "pair": np.asarray([-1.0, 1.0])}
    found = thinned_ranks(given, truth, key=jax.random.key(0))
    assert found["x"] == 31
    np.testing.assert_array_equal(found["pair"], [0, 99])
    ties = [int(thinned_ranks(given, {"tied": 0.0}, key=jax.random.key(i))["tied"]) for i in range(300)]
    assert stats.kstest((np.asarray(ties) + 0.5) / 100, "uniform").pvalue > 0.01
    # Thinned evenly over chains, resampled by weight.
    longer = Posterior({"x": np.arange(990.0).reshape(2, 495)}, None, {}, "")
    assert thinned_ranks(longer, {"x": 300.0}, key=jax.random.key(0))["x"] == 30
    weights = np.where(np.arange(990) < 495, np.log(1e-12), 0.0).reshape(2, 495)
    heavy = dataclasses.replace(longer, log_weights=weights - np.logaddexp.reduce(weights, axis=None))
    assert thinned_ranks(heavy, {"x": 494.5}, key=jax.random.key(0))["x"] == 0
    with pytest.raises(ValueError, match="at least 99 draws; received: 50; try: more draws"):
        thinned_ranks(Posterior({"x": np.zeros((1, 50))}, None, {}, ""), {"x": 0.0}, key=jax.random.key(0))


def test_a_histogram_that_would_mean_nothing_is_refused(right):
    with pytest.raises(ValueError, match="bins that divide 100 ranks; received: offset of shape .* and 7 bins"):
        right.histogram("offset", bins=7)
    vector = dataclasses.replace(right, ranks={"pair": np.zeros((120, 2))})
    with pytest.raises(ValueError, match="scalar quantity"):
        vector.histogram("pair")
