"""The replay harness: baselines by hand, scores against closed forms, a leak and an unfair forecaster are seen."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tumortwin.metrics import (
    ReplayCard,
    Series,
    Targets,
    compare_replay,
    exponential_forecast,
    leakage,
    paired_bootstrap,
    persistence_forecast,
    population_mean_forecast,
    regressor_forecast,
    score_replay,
    subgroup_table,
    targets_of,
)

NAN = float("nan")


def series(*rows):
    width = max(len(r) for r in rows)
    valid = np.asarray([[k < len(r) for k in range(width)] for r in rows])
    days = np.asarray([[r[min(k, len(r) - 1)][0] if r else 0.0 for k in range(width)] for r in rows])
    values = np.asarray([[r[k][1] if k < len(r) else 0.0 for k in range(width)] for r in rows])
    return Series(days, values, valid)


KNOWN = series([(0.0, 1.0), (2.0, 2.0)], [(0.0, 3.0)], [(0.0, 4.0), (1.0, 0.0)])
HELD = series([(3.0, 5.0), (4.0, 6.0)], [(5.0, 3.0)], [])


def cohort(subjects=60, noise=0.05, seed=0):
    """Exponential growth, five readings each."""
    rng = np.random.default_rng(seed)
    days = np.broadcast_to(np.arange(5.0), (subjects, 5)).copy()
    rate = rng.normal(0.2, 0.05, (subjects, 1))
    return Series(days, np.exp(rate * days + noise * rng.normal(size=days.shape)), np.ones(days.shape, bool))


def split(whole, known=3):
    hidden = np.broadcast_to(np.arange(whole.times.shape[1]) >= known, whole.valid.shape)
    return dataclasses.replace(whole, valid=whole.valid & ~hidden), dataclasses.replace(
        whole, valid=whole.valid & hidden
    )


def test_targets_are_the_hidden_readings_in_order():
    found = targets_of(HELD)
    assert found.asked.subject.tolist() == [0, 0, 1] and found.asked.step.tolist() == [1, 2, 1]
    assert found.asked.day.tolist() == [3.0, 4.0, 5.0] and found.observed.tolist() == [5.0, 6.0, 3.0]
    with pytest.raises(ValueError, match="hidden reading"):
        targets_of(dataclasses.replace(HELD, valid=HELD.valid & False))


def test_persistence_exponential_and_mean_by_hand():
    asked = targets_of(HELD).asked
    assert persistence_forecast(KNOWN, asked)[:, 0].tolist() == [2.0, 2.0, 3.0]
    # doubling in two days; one reading persists
    np.testing.assert_allclose(exponential_forecast(KNOWN, asked)[:, 0], [2.0**1.5, 4.0, 3.0], rtol=1e-12)
    np.testing.assert_allclose(population_mean_forecast(KNOWN, asked)[:, 0], (1.5 + 3.0 + 2.0) / 3)
    gone = targets_of(series([], [], [(9.0, 1.0)])).asked
    assert exponential_forecast(KNOWN, gone)[0, 0] == 0.0


def test_a_subject_of_which_nothing_is_known_is_refused():
    nothing = dataclasses.replace(KNOWN, valid=KNOWN.valid & np.asarray([[True], [False], [True]]))
    with pytest.raises(ValueError, match="known reading"):
        persistence_forecast(nothing, targets_of(HELD).asked)


def test_the_regressor_learns_growth_that_persistence_misses_and_is_repeatable():
    known, held = split(cohort())
    targets = targets_of(held)
    samples = {
        "regressor": regressor_forecast(known, targets.asked),
        "persistence": persistence_forecast(known, targets.asked),
    }
    scores = score_replay(samples, targets)
    assert scores["regressor"].error.mean() < 0.7 * scores["persistence"].error.mean()
    assert not scores["regressor"].point and scores["persistence"].point
    np.testing.assert_array_equal(samples["regressor"], regressor_forecast(known, targets.asked))
    with pytest.raises(ValueError, match="5 subjects"):
        regressor_forecast(KNOWN, targets_of(HELD).asked)


def test_scores_of_a_normal_forecast_agree_with_the_closed_form():
    rng = np.random.default_rng(1)
    observed = rng.normal(size=400)
    levels = (np.arange(4000) + 0.5) / 4000
    sample = np.broadcast_to(stats.norm.ppf(levels), (400, 4000))
    asked = dataclasses.replace(
        targets_of(HELD).asked, subject=np.arange(400), day=np.zeros(400), step=np.ones(400, int)
    )
    found = score_replay({"n": sample}, Targets(asked, observed))["n"]
    exact = observed * (2 * stats.norm.cdf(observed) - 1) + 2 * stats.norm.pdf(observed) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(found.crps, exact, atol=1e-3)
    np.testing.assert_allclose(found.pit, stats.norm.cdf(observed), atol=1e-3)
    np.testing.assert_array_equal(found.inside, np.abs(observed) <= stats.norm.ppf(0.975))
    names = [e["name"] for e in found.entries(Targets(asked, observed))]
    assert "replay.n.coverage_step1_low" in names


def test_a_monotone_transform_keeps_medians_and_coverage_and_a_gap_is_refused():
    known, held = split(cohort(20))
    targets = targets_of(held)
    samples = {"r": regressor_forecast(known, targets.asked) + 5.0, "p": persistence_forecast(known, targets.asked)}
    plain, logs = score_replay(samples, targets), score_replay(samples, targets, transform=np.log1p)
    assert np.mean(plain["r"].inside == logs["r"].inside) > 0.95
    np.testing.assert_allclose(logs["p"].error, np.abs(np.log1p(samples["p"][:, 0]) - np.log1p(targets.observed)))
    samples["p"][3, 0] = NAN
    with pytest.raises(ValueError, match="1 values that are not finite"):
        score_replay(samples, targets)


def test_a_leak_is_seen_and_an_honest_forecaster_passes():
    whole = cohort(12)
    hidden = np.broadcast_to(np.arange(5) >= 3, whole.valid.shape)

    def honest(series):
        known, held = split(series)
        return persistence_forecast(known, targets_of(held).asked)

    def peeking(series):
        known, held = split(series)
        largest = np.where(series.valid, series.values, 0.0).max(axis=1)  # the future's largest scales the forecast
        targets = targets_of(held)
        return persistence_forecast(known, targets.asked) * largest[targets.asked.subject][:, None]

    assert leakage(honest, whole, hidden, rng=np.random.default_rng(0)) == 0.0
    assert leakage(peeking, whole, hidden, rng=np.random.default_rng(0)) > 0.1


def test_the_paired_bootstrap_covers_a_known_difference_and_resamples_subjects():
    rng, covered = np.random.default_rng(2), []
    for _ in range(60):
        shared = np.repeat(rng.normal(0.3, 1.0, 40), 5)  # five equal cases a subject
        found = paired_bootstrap(shared, np.zeros(200), np.repeat(np.arange(40), 5), rng=rng, resamples=400)
        covered.append(found.low <= 0.3 <= found.high)
        assert found.subjects == 40
    assert np.mean(covered) > 0.85  # by readings it would be some .6
    same = paired_bootstrap(np.ones(4), np.ones(4), np.arange(4), rng=rng, resamples=10)
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_comparison_names_every_other_forecaster():
    known, held = split(cohort(30))
    targets = targets_of(held)
    samples = {
        "exponential": exponential_forecast(known, targets.asked),
        "persistence": persistence_forecast(known, targets.asked),
    }
    ((name, found),) = compare_replay(
        score_replay(samples, targets), "exponential", targets, rng=np.random.default_rng(0)
    ).items()
    assert name == "persistence" and found.high < 0.0 and found.p < 1e-3


def test_a_planted_error_in_a_subgroup_is_found_and_a_fair_one_is_not_accused():
    known, held = split(cohort(120))
    targets = targets_of(held)
    group = np.arange(120) % 2
    fair = targets.observed[:, None] + np.random.default_rng(3).normal(0, 0.2, (targets.cases, 200))
    doubled = targets.observed + np.where(group[targets.asked.subject] == 1, 0.4, 0.2)
    scores = score_replay({"fair": fair, "unfair": doubled[:, None]}, targets)
    rng = np.random.default_rng(4)
    _, harmed = subgroup_table(scores["unfair"], targets, {"site": group}, rng=rng)
    assert harmed.label == "site=1" and harmed.excess_low > 0.1
    for row in subgroup_table(scores["fair"], targets, {"site": group}, rng=rng):
        assert row.excess_low < 0.0 < row.excess_high and row.subjects == 60 and row.cases == 120


def test_a_card_without_limits_is_refused():
    whole = {
        "name": "x", "cohort": "mice", "subjects": 3, "cases": 6, "split": "by time", "site_split": "one laboratory",
        "comparators": ("persistence",), "looks": "once", "limits": ("few",),
    }  # fmt: skip
    assert ReplayCard(**whole).as_plain()["limits"] == ["few"]
    with pytest.raises(ValueError, match="nothing for: limits"):
        ReplayCard(**{**whole, "limits": ()})
    with pytest.raises(ValueError, match="tier"):
        ReplayCard(**whole, tier="proven")
