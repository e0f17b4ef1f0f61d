"""The ensemble Kalman filter against Kalman's; localization and collapse; a field on its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.inference import EnsembleKalmanFilter, LogitScale, Seen, filter_states, gaspari_cohn

STEP = np.asarray([[1.0, 0.5], [0.0, 0.9]])  # position and speed, a day
LOOK = np.asarray([[1.0, 0.0]])
NOISE = 0.4
DAYS = (1.0, 2.0, 4.0)
VALUES = (1.3, 1.9, 2.2)


def forecast(x, begin, end):
    """`STEP` once a day, by eigenvalues, so that any span will do."""
    values, vectors = np.linalg.eig(STEP)
    power = jnp.asarray(vectors) * jnp.asarray(values)[None] ** (end - begin) @ jnp.asarray(np.linalg.inv(vectors))
    return power @ x


def observe(x):
    return x[:1]


def kalman(mean, covariance):
    """Kalman's filter through the observations, and the log evidence."""
    now, score = 0.0, 0.0
    for day, value in zip(DAYS, VALUES, strict=True):
        power = np.linalg.matrix_power(STEP, int(day - now))
        mean, covariance, now = power @ mean, power @ covariance @ power.T, day
        spread = LOOK @ covariance @ LOOK.T + NOISE**2
        gain = covariance @ LOOK.T / spread
        gap = value - LOOK @ mean
        score += float(-0.5 * (gap**2 / spread[0, 0] + np.log(2 * np.pi * spread[0, 0]))[0])
        mean, covariance = mean + gain[:, 0] * gap, covariance - gain @ LOOK @ covariance
    return mean, covariance, score


def seen():
    return [Seen(day, np.asarray([value]), np.asarray([NOISE])) for day, value in zip(DAYS, VALUES, strict=True)]


def test_the_transform_is_kalman_s_filter_for_the_ensemble_s_own_moments():
    members = jax.random.normal(jax.random.key(0), (12, 2)) * jnp.asarray([[1.0, 0.5]])
    found = filter_states(members, forecast, observe, seen(), EnsembleKalmanFilter(), key=jax.random.key(1))
    start = np.asarray(members)
    mean, covariance, score = kalman(start.mean(axis=0), np.cov(start.T))
    np.testing.assert_allclose(found.mean[-1], mean, rtol=1e-9)
    np.testing.assert_allclose(np.cov(found.members.T), covariance, rtol=1e-8)
    assert found.log_score.sum() == pytest.approx(score, rel=1e-9)
    np.testing.assert_allclose(found.sd[-1], np.sqrt(np.diag(covariance)), rtol=1e-8)


def test_perturbed_observations_come_to_kalman_s_filter_with_many_members():
    """The error of 20 000 members is some 1 / sqrt(20 000) of a spread."""
    members = jax.random.normal(jax.random.key(2), (20_000, 2))
    settings = EnsembleKalmanFilter("stochastic")
    found = filter_states(members, forecast, observe, seen(), settings, key=jax.random.key(3))
    mean, covariance, _ = kalman(np.zeros(2), np.eye(2))
    np.testing.assert_allclose(found.mean[-1], mean, atol=5 * np.sqrt(covariance.max() / 20_000))
    np.testing.assert_allclose(np.cov(found.members.T), covariance, atol=0.03 * covariance.max())


def test_a_parameter_is_estimated_by_being_a_part_of_the_state():
    """x' = -k x seen five times: k from its regression on x, and no observation of k itself."""
    truth, days = 0.3, (1.0, 2.0, 3.0, 4.0, 5.0)
    key = jax.random.key(4)
    draws = jax.random.normal(key, (60, 2))
    members = jnp.stack([10.0 + 0.5 * draws[:, 0], jnp.log(0.2) + 0.5 * draws[:, 1]], axis=1)

    def decay(x, begin, end):
        return x.at[0].multiply(jnp.exp(-jnp.exp(x[1]) * (end - begin)))

    data = [Seen(day, np.asarray([10 * np.exp(-truth * day)]), np.asarray([0.1])) for day in days]
    found = filter_states(members, decay, observe, data, EnsembleKalmanFilter(), key=key)
    assert abs(found.mean[-1, 1] - np.log(truth)) < 3 * found.sd[-1, 1] < 0.3
    assert np.all(np.diff(found.sd[:, 1]) < 0)
    assert found.consistent


def far_field(settings, members, seed):
    """40 independent places, of which every one is seen three times: what a filter makes of the mean and the spread."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=40)
    places = jnp.arange(40.0)[:, None]
    data = [Seen(float(day), truth + 0.5 * rng.normal(size=40), np.full(40, 0.5)) for day in (1, 2, 3)]
    start = jax.random.normal(jax.random.key(seed), (members, 40))
    return truth, filter_states(
        start, lambda x, begin, end: x, lambda x: x, data, settings, tapers=settings.tapers_of(places, places),
        key=jax.random.key(seed + 1),
    )  # fmt: skip


def test_a_small_ensemble_collapses_and_is_called_inconsistent_unless_localized():
    """10 members span 9 directions of 40: errors that the spread does not show. Tapered, each place is for itself."""
    truth, bare = far_field(EnsembleKalmanFilter("stochastic"), 10, 0)
    error = np.sqrt(np.mean((bare.mean[-1] - truth) ** 2))
    assert error > 2 * np.sqrt(np.mean(bare.sd[-1] ** 2))
    assert not bare.consistent
    truth, local = far_field(EnsembleKalmanFilter("stochastic", localization=1.5), 10, 0)
    error = np.sqrt(np.mean((local.mean[-1] - truth) ** 2))
    assert error < 1.5 * np.sqrt(np.mean(local.sd[-1] ** 2))
    assert local.consistent
    exact = 1 / np.sqrt(1 + 3 / 0.5**2)
    assert np.mean(local.sd[-1]) == pytest.approx(exact, rel=0.25)


def test_inflation_widens_and_leaves_the_mean():
    members = jax.random.normal(jax.random.key(5), (7, 3))
    wider = EnsembleKalmanFilter(inflation=1.1).inflated(members)
    np.testing.assert_allclose(wider.mean(axis=0), members.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(wider.std(axis=0), 1.1 * members.std(axis=0), rtol=1e-12)


def test_the_taper_and_the_scale():
    r = jnp.linspace(0.0, 3.0, 301)
    taper = np.asarray(gaspari_cohn(r))
    assert taper[0] == 1.0 and np.all(taper[200:] == 0.0) and np.all(np.diff(taper) <= 1e-12)
    assert taper[100] == pytest.approx(5 / 24, abs=1e-12)
    for below in (1 - 1e-7, 2 - 1e-7):
        a, b = gaspari_cohn(jnp.asarray([below, below + 2e-7]))
        assert abs(a - b) < 1e-5
    scale = LogitScale()
    density = jnp.asarray([0.0, 1e-6, 0.3, 1.0])
    np.testing.assert_allclose(scale.from_scale(scale.to_scale(density)), density, atol=1e-14)
    assert scale.from_scale(jnp.asarray(-50.0)) == 0.0
    field = EnsembleKalmanFilter("stochastic", localization=4.0)
    places = jnp.asarray([[0.0], [1.0], [jnp.nan]])
    tapers = field.tapers_of(places, places[:2])
    assert tapers is not None
    weights, own = tapers
    np.testing.assert_allclose(weights[2], 1.0)
    assert own[0, 1] == pytest.approx(float(gaspari_cohn(jnp.asarray(0.5))))


def test_what_a_filter_cannot_do_is_refused():
    members = jnp.zeros((5, 2))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="'stochastic' with localization"):
        EnsembleKalmanFilter("transform", localization=3.0)
    with pytest.raises(ValueError, match="inflation at least 1"):
        EnsembleKalmanFilter(inflation=0.9)
    late = seen()[::-1]
    with pytest.raises(ValueError, match="in the order of days"):
        filter_states(members, forecast, observe, late, EnsembleKalmanFilter(), key=key)
    with pytest.raises(FloatingPointError, match="5 that failed"):
        filter_states(members, lambda x, a, b: x * jnp.nan, observe, seen(), EnsembleKalmanFilter(), key=key)
