"""Glioma schedules: the closed forms, the posterior by the bank, plans that keep their limits and their promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import logsumexp
from scipy.stats import norm

from experiments.chaudhuri2023 import plans
from experiments.chaudhuri2023.cohort import (
    INITIAL,
    MEDIAN,
    SPREAD,
    Bank,
    below_truth,
    inside,
    patients,
    posteriors,
    resampled,
)
from experiments.chaudhuri2023.model import (
    GOMPERTZ,
    LOGISTIC,
    START,
    WEEKS,
    above_during_treatment,
    burden,
    course,
    gompertz_decay,
    scans,
    time_to_progression,
)
from tumortwin.control import LogisticTimeToProgression, PlanVariables
from tumortwin.treatments import biologically_effective_dose, equivalent_dose_2gy

TWO = jnp.full(6, 2.0)


def a_draw(**changes):
    return {k: jnp.asarray(v) for k, v in ({**MEDIAN, "growth_rate": 0.04} | changes).items()}


def test_check_values_of_the_standard_of_care():
    """N(21) = .2 K, rho = alpha = .05: after the last fraction .0324035 K, back after 79.2051 days."""
    ratio = 1.0 + 4.0 * np.exp(0.05 * START)
    draw = a_draw(growth_rate=0.05, capacity_ratio=ratio)
    first, _, last = course(draw, TWO, LOGISTIC)
    assert float(1.0 / first) == pytest.approx(0.2, abs=1e-12)
    assert float(1.0 / last) == pytest.approx(0.0324035, abs=5e-8)
    assert float(time_to_progression(draw, TWO, LOGISTIC)) == pytest.approx(79.2051, abs=5e-5)


def test_check_values_of_effective_doses():
    long, short = jnp.full(30, 2.0), jnp.full(25, 2.0)
    assert float(biologically_effective_dose(long, 10.0)) == pytest.approx(72.0)
    assert float(biologically_effective_dose(short, 10.0)) == pytest.approx(60.0)
    assert float(biologically_effective_dose(long, 3.0)) == pytest.approx(100.0)
    assert float(equivalent_dose_2gy(long, 3.0)) == pytest.approx(60.0)


@pytest.mark.parametrize("law", [LOGISTIC, GOMPERTZ])
def test_closed_forms_are_the_solution_of_the_differential_equation(law):
    draw, doses = a_draw(), np.asarray([2.0, 0.0, 1.9, 2.7, 2.7, 2.7])
    rho, ratio, alpha = 0.04, 5.0, 0.05
    decay = float(gompertz_decay(draw))
    assert decay * np.log(ratio) == pytest.approx(rho * (1 - 1 / ratio))  # as fast at N(0)

    def rate(_, n):
        return rho * n * (1 - n / ratio) if law is LOGISTIC else decay * n * np.log(ratio / n)

    def grown(n, days):
        return solve_ivp(rate, (0, days), [n], rtol=1e-12, atol=1e-14).y[0, -1] if days else n

    n, day, seen = grown(1.0, START), START, {20.0: grown(1.0, 20.0)}
    for number, at in enumerate(START + WEEKS.fraction_days):
        if day < 27.0 <= at:
            seen[27.0] = grown(n, 27.0 - day)
        n, day = grown(n, at - day), at
        n *= np.exp(-alpha * doses[number // 5] * (1 + doses[number // 5] / 10.0))
    _, _, last = course(draw, jnp.asarray(doses), law)
    assert float(law.burden(last, draw)) == pytest.approx(n, rel=1e-9)
    assert np.asarray(scans(draw, law)) == pytest.approx(np.log([1.0, seen[20.0], seen[27.0]]), abs=1e-9)
    back = float(time_to_progression(draw, jnp.asarray(doses), law)) - WEEKS.fraction_days[-1]
    assert grown(n, back) == pytest.approx(grown(1.0, START), rel=1e-8)


def test_the_objective_of_the_planner_is_the_time_that_is_reported():
    at = PlanVariables(jnp.asarray([2.0, 0.5, 1.9, 2.7, 2.2, 2.7]), jnp.asarray(START))
    objective = LogisticTimeToProgression(START, START + 180.0)
    for draw in (a_draw(), a_draw(alpha=0.01, growth_rate=0.1), a_draw(alpha=0.2, growth_rate=0.01)):
        loss = objective(burden(draw, WEEKS.schedule(at)).with_given(WEEKS.courses(at)))
        assert float(loss) == pytest.approx(-float(time_to_progression(draw, at.weekly_fraction_dose, LOGISTIC)))


def test_a_gap_lets_a_tumor_stand_above_its_burden_of_day_21_and_the_end_of_a_course_does_not_count():
    gap, short = jnp.asarray([0.0, 0.0, 2.0, 2.7, 2.7, 2.7]), jnp.asarray([4.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    draw = a_draw()
    found = [bool(above_during_treatment(draw, doses, LOGISTIC)) for doses in (gap, TWO, short)]
    assert found == [True, False, False]


def test_the_posterior_by_the_bank_is_that_of_a_grid():
    """Mean and spread of ln rho, ln alpha and ln N(0), by brute force over four parameters."""
    rng = np.random.default_rng(5)
    who = patients(1, True, LOGISTIC, rng)
    found = posteriors(Bank.of(32_768, True, rng), who.readings)
    z = np.linspace(-3.6, 3.6, 41)
    names = ("growth_rate", "alpha", "capacity_ratio")
    grid = np.stack([g.ravel() for g in np.meshgrid(z, z, z, indexing="ij")])
    members = {name: MEDIAN[name] * np.exp(SPREAD * row) for name, row in zip(names, grid, strict=True)}
    keep = members["capacity_ratio"] > 1.1
    members = {name: jnp.asarray(value[keep]) for name, value in members.items()} | {
        "alpha_beta": jnp.full(keep.sum(), 10.0)
    }
    curves = np.asarray(jax.vmap(lambda draw: scans(draw, LOGISTIC))(members))
    center = who.readings.mean()
    size = center + np.linspace(-1.5, 1.0, 61)  # ln N(0)
    off = who.readings - curves[:, None, :] - size[None, :, None]
    log_density = norm.logpdf(grid[:, keep]).sum(axis=0)[:, None] + norm.logpdf(size, np.log(INITIAL), 0.8)
    log_density = log_density + norm.logpdf(off, scale=0.1).sum(axis=2)
    exact = np.exp(log_density - logsumexp(log_density))
    by_member = exact.sum(axis=1)
    for name in ("growth_rate", "alpha"):
        value, own = np.log(np.asarray(members[name])), np.log(found.bank.members[name])
        _same_moments(value, by_member, own, found.weights[0])
    mean = float((found.weights[0] * found.initial_mean[0]).sum())
    assert mean == pytest.approx((exact.sum(axis=0) * size).sum(), abs=0.01)
    assert found.k_hat[0] < 0.5 and found.effective[0] > 300
    ours, ratio = below_truth(found, who), np.asarray(members["capacity_ratio"])
    assert ours["initial"][0] == pytest.approx(_below(exact, size, np.log(who.initial[0])), abs=0.02)
    log_capacity = np.log(who.truth["capacity_ratio"][0] * who.initial[0])
    assert ours["capacity"][0] == pytest.approx(_below(exact, np.log(ratio)[:, None] + size, log_capacity), abs=0.02)


def _below(weights, values, limit):
    """Share below the limit on a grid; a cell that holds it counts by its middle: half of it."""
    step = 2.5 / 60
    return float((weights * np.clip((limit - values) / step + 0.5, 0.0, 1.0)).sum())


def _same_moments(value, weight, own, share):
    mean, ours = (weight * value).sum(), (share * own).sum()
    spread = np.sqrt((weight * (value - mean) ** 2).sum())
    assert ours == pytest.approx(mean, abs=0.08 * spread)
    assert np.sqrt((share * (own - ours) ** 2).sum()) == pytest.approx(spread, rel=0.08)


def test_posteriors_hold_their_truths_and_draws_follow_the_weights():
    rng = np.random.default_rng(6)
    who = patients(200, False, LOGISTIC, rng)
    found = posteriors(Bank.of(4_096, False, rng), who.readings)
    held = inside(found, who)
    assert set(held) == {"growth_rate", "alpha", "capacity", "initial", "alpha_beta"}
    assert all(0.89 <= each.mean() <= 0.99 for each in held.values())
    drawn = np.log(resampled(found, 400, rng)["alpha"]).mean(axis=1)
    expected = (found.weights * np.log(found.bank.members["alpha"])).sum(axis=1)
    np.testing.assert_allclose(drawn, expected, atol=0.1)


@pytest.mark.slow
def test_plans_keep_limits_are_never_worse_than_standard_and_the_smallest_dose_is_the_smallest():
    rng = np.random.default_rng(7)
    who = patients(4, True, LOGISTIC, rng)
    draws = resampled(posteriors(Bank.of(2_048, True, rng), who.readings), 16, rng)
    standard = plans.risk(draws, plans.STANDARD_PLAN, LOGISTIC)
    for limits in plans.SETS:
        best = plans.personal(limits, draws)
        assert (best.risk <= standard + 1e-9).all()
        np.testing.assert_allclose(best.risk, plans.risk(draws, best.doses, LOGISTIC), rtol=1e-9)
        least = plans.smallest(limits, draws, standard, best)
        assert (least.risk <= standard + 1e-9).all()
        assert plans.violation(limits, np.concatenate([best.doses, least.doses])) <= 1e-9
        less = plans.personal(limits, draws, {"total_dose": plans.total_of(least.doses) - 0.2}, least.doses)
        room = plans.total_of(least.doses) > 5 * (2.0 + 5 * limits.low) + 0.3  # not at the least dose already
        assert (less.risk[room] > standard[room]).all()
