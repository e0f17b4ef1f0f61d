"""The two-drug grid: record, baselines, restricted mean, responses, the model's identities and the quick posterior."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, gammaln, polygamma

from experiments.maeve_combination.arms import additive, bliss, observed, restricted_mean, same_second_dose
from experiments.maeve_combination.model import FreeResponse, SaturatingResponse, volume_problem, weight_problem
from experiments.maeve_combination.plan import grid_of, harm_probabilities
from experiments.maeve_combination.population import fitted, reweighted
from experiments.maeve_combination.record import animals_of
from tumortwin._errors import InputError
from tumortwin.inference._population import with_subjects
from tumortwin.io import Readings, Table, find_data_root, load_table

ARMS = [(a, b) for a in (0, 1, 10) for b in (0, 10, 40)]
DAYS = [0.0, 7.0, 14.0, 21.0, 28.0]


def table_of(log_relative: dict[tuple[int, int], float], group: str = "x_{}_y_{}") -> Table:
    """One animal an arm, 100 mm^3 and 20 g on day 0, exponential to the given log ratio on day 14."""
    days = np.tile(DAYS, len(ARMS))
    volume = np.concatenate([100.0 * np.exp(log_relative[arm] * np.array(DAYS) / 14.0) for arm in ARMS])
    grams = np.tile([20.0, 18.0, 20.0, 21.0, 22.0], len(ARMS))
    measured = np.ones(days.size, bool)
    low = np.where(volume <= 16.0, 0.0, volume)
    return Table(
        tuple(f"m{k}" for k in range(len(ARMS))),
        np.repeat(np.arange(len(ARMS)), len(DAYS)),
        days,
        {
            "volume": Readings("mm^3", volume, low, volume, measured),
            "body_weight": Readings("g", grams, grams, grams, measured),
        },
        {},
        {"group": np.array([group.format(*arm) for arm in ARMS])},
        (),
        Path("x.csv"),
    )


ADDITIVE = {(a, b): 1.0 - 0.1 * a - 0.02 * b for a, b in ARMS}


def test_arms_and_doses_come_from_the_name_of_the_group() -> None:
    animals = animals_of(table_of(ADDITIVE))
    assert animals.levels == ((1.0, 10.0), (10.0, 40.0))
    assert animals.drugs == ("x", "y")
    assert len(animals.combinations) == 4
    with pytest.raises(InputError, match="groups such as"):
        animals_of(table_of(ADDITIVE, group="control"))


def test_weight_is_net_of_the_tumor() -> None:
    animals = animals_of(table_of(ADDITIVE))
    tumor = 100.0 * np.exp(0.5) * 1e-3  # day 7 without treatment
    assert animals.loss[0] == pytest.approx(1.0 - (18.0 - tumor) / (20.0 - 0.1))


def test_baselines_are_exact_where_their_law_holds() -> None:
    animals = animals_of(table_of(ADDITIVE))
    known = observed(animals, 14.0)
    for arm in animals.combinations:
        assert bliss(animals, known, arm) == pytest.approx(known[arm])
        assert additive(animals, known, arm) == pytest.approx(known[arm])
        assert same_second_dose(animals, known, arm) != pytest.approx(known[arm])


def test_restricted_mean_with_and_without_censoring() -> None:
    times = np.array([10.0, 20.0, 30.0])
    assert restricted_mean(times, np.ones(3, bool), 40.0) == pytest.approx(20.0)
    reached = np.array([True, False, True])
    assert restricted_mean(times, reached, 40.0) == pytest.approx(10.0 + 20.0 * 2.0 / 3.0)
    assert restricted_mean(times, np.zeros(3, bool), 40.0) == pytest.approx(40.0)


def test_free_response_meets_its_levels_and_need_not_rise() -> None:
    response = FreeResponse({"1": jnp.asarray(0.5), "10": jnp.asarray(0.2)}, (1.0, 10.0))
    np.testing.assert_allclose(response(jnp.asarray([0.0, 1.0, 10.0, 18.0])), [0.0, 0.5, 0.2, 0.2], atol=1e-12)
    rising = SaturatingResponse(jnp.asarray(1.0), jnp.asarray(5.0))(jnp.linspace(0.0, 80.0, 50))
    assert (np.diff(np.asarray(rising)) > 0).all()


def test_the_model_starts_at_the_first_volume_and_dose_only_lowers_it() -> None:
    problem = volume_problem(animals_of(table_of(ADDITIVE)))
    model = with_subjects(
        problem.model,
        {
            "slowing.at.1": jnp.asarray(0.05),
            "relative_kill.at.10": jnp.asarray(0.5),
            "relative_kill.at.40": jnp.asarray(1.0),
        },
    )
    days = jnp.asarray(DAYS)
    zero, one, ten, forty = (jnp.asarray(x) for x in (0.0, 1.0, 10.0, 40.0))
    start = jnp.asarray(100.0)
    alone = model.volume(days, start, zero, zero)
    assert float(alone[0]) == pytest.approx(100.0, rel=1e-2)
    growth, slow = 0.1, 0.02
    np.testing.assert_allclose(alone, 100.0 * np.exp(growth / slow * (1.0 - np.exp(-slow * np.array(DAYS)))), rtol=1e-6)
    assert (model.volume(days, start, one, zero)[1:] < alone[1:]).all()
    assert (model.volume(days, start, zero, forty)[1:] < model.volume(days, start, zero, ten)[1:]).all()


@pytest.mark.slow
def test_a_hidden_arm_says_nothing_and_the_mode_is_found() -> None:
    animals = animals_of(table_of(ADDITIVE))
    arm = animals.combinations[0]
    problem = volume_problem(animals, hidden=arm)
    row = int(np.flatnonzero(animals.arm == arm)[0])
    z = problem.sample_prior(1, key=jax.random.key(0))[0]
    assert np.asarray(problem.log_likelihoods(problem.constrain(z)))[row].sum() == 0.0
    found = fitted(weight_problem(animals), 50, rng=np.random.default_rng(0))
    assert found.gradient < 1e-2
    assert np.isfinite(found.heads).all()
    values = {path.removeprefix("typical."): value for path, value in found.values().items()}
    chance = harm_probabilities(found.problem.model, values, (1.0, 40.0))
    assert ((chance >= 0) & (chance <= 1)).all()


class LogGamma(eqx.Module):
    """z = ln x with x ~ Gamma(shape, 1): skewed, mode ln(shape), curvature shape."""

    shape: jax.Array

    def log_density(self, z: jax.Array) -> jax.Array:
        return jnp.sum(self.shape * z - jnp.exp(z))


def test_weighted_draws_about_a_mode_have_the_exact_moments_and_evidence() -> None:
    shape = np.array([1.5, 4.0])
    problem, mode, covariance = LogGamma(jnp.asarray(shape)), np.log(shape), np.diag(1.0 / shape)
    drawn, evidence, k_hat = reweighted(problem, mode, covariance, 4000, np.random.default_rng(0))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(drawn.mean(axis=0), digamma(shape), atol=0.04)  # the mode is off by .37 and .13
    np.testing.assert_allclose(drawn.var(axis=0), polygamma(1, shape), rtol=0.08)  # the curvature by 29 and 12 %
    assert evidence == pytest.approx(gammaln(shape).sum(), abs=0.03)
    assert k_hat < 0.7


def test_the_grid_of_doses_has_those_that_were_tried() -> None:
    assert {0.0, 1.0, 10.0}.issubset(grid_of((1.0, 10.0)))


@pytest.mark.data
def test_baselines_of_the_real_grid() -> None:
    try:
        find_data_root(None)
        table = load_table("maeve_gdc0084_temozolomide", None)
    except InputError as error:
        pytest.skip(f"no public data: {error.received}")
    animals = animals_of(table)
    for day, published in ((14.0, 0.31), (21.0, 0.28), (28.0, 0.47)):
        known = observed(animals, day)
        errors = [bliss(animals, known, k) - known[k] for k in animals.combinations]
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(published, abs=0.006)
