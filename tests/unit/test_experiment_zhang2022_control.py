"""Rules and schedules at visits: when clones must progress, what is confirmed, halves that do not meet, the search."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.zhang2022.population import design
from experiments.zhang2022_control import schedules
from experiments.zhang2022_control.judging import Plans, judged
from experiments.zhang2022_control.policies import HORIZON, NEVER, PROGRESSION, VISIT, followed, thresholds
from experiments.zhang2022_control.virtual import Bank
from tumortwin.control import HysteresisPolicy, SchedulePolicy, judged_vectors
from tumortwin.models import IndependentClones, SensitiveResistant

GROWTH, KILL, RESISTANT, SHARE = 0.01, 0.04, 0.004, 0.1


def clones(size: int = 1) -> IndependentClones:
    one = jnp.ones(size)
    return IndependentClones(GROWTH * one, KILL * one, RESISTANT * one, SHARE * one, one)


def rivals() -> SensitiveResistant:
    """Four patients whose cells compete, in units of the capacity."""
    one = jnp.ones(4)
    share = jnp.asarray([1e-3, 3e-3, 1e-2, 3e-2])
    return SensitiveResistant(0.45 * one, share, 0.02 * one, 0.012 * one, 4.0 * one, one, 0.95 * one)


def run(stop: float, restart: float, confirmed: bool = False) -> tuple[float, float]:
    found = followed(HysteresisPolicy(stop, restart), clones(), confirmed=confirmed)
    return float(found.days[0]), float(found.on[0] / found.days[0])


def test_continuous_drug_progresses_when_the_resistant_clone_is_back() -> None:
    days, on = run(NEVER, 1.0)
    exact = np.log(PROGRESSION / SHARE) / RESISTANT  # nothing sensitive is left by then
    assert exact <= days <= exact + VISIT
    assert on == 1.0


def test_the_trial_rule_takes_less_drug_and_gains_nothing_without_competition() -> None:
    days, on = run(0.5, 1.0)
    assert on < 0.8
    assert days <= run(NEVER, 1.0)[0]


def test_a_rise_that_the_drug_undoes_is_no_confirmed_progression() -> None:
    """Drug from 1.5 on, never reached at once: above 1.2 it is given all the same, and the burden falls again."""
    plain, confirmed = run(0.5, 1.5), run(0.5, 1.5, confirmed=True)
    assert confirmed[0] > plain[0]
    never = followed(SchedulePolicy(jnp.zeros(HORIZON)), clones(), confirmed=True)
    assert float(never.on[0]) > 0.0


def test_the_first_two_policies_are_continuous_drug_and_the_trial_rule() -> None:
    names, stop, restart = thresholds()
    assert names[:2] == ["continuous", "adaptive"]
    assert float(stop[1]) == pytest.approx(0.5)
    assert float(restart[1]) == 1.0
    assert len(names) == stop.size == restart.size
    assert HORIZON * VISIT >= 1800


def test_halves_share_no_virtual_patient_and_draws_follow_the_weights() -> None:
    weights, tag, one = np.random.default_rng(0).dirichlet(np.ones(64), size=2), jnp.arange(64.0), jnp.ones(64)
    bank = Bank(IndependentClones(one, one, one, one, tag), weights)
    first, second = (starts(bank.half(k)) for k in (0, 1))
    assert not np.intersect1d(first, second).size and first.size + second.size == 64
    drawn = starts(Bank(bank.drawn(1, 4000), weights)).astype(int)
    np.testing.assert_allclose(np.bincount(drawn, minlength=64) / 4000, weights[1], atol=1.1 / 4000)


def test_either_half_covers_the_whole_design() -> None:
    """Means and corners of both parameters; every second point of a Sobol sequence fails this."""
    scale, share = jnp.asarray(design(64)).T
    bank = Bank(IndependentClones(scale, share, scale, share, scale), np.ones((1, 64)))
    for half in (bank.half(0).model, bank.half(1).model):
        assert isinstance(half, IndependentClones)
        for part, whole in ((half.growth_rate, scale), (half.drug_kill, share)):
            assert abs(float(part.mean() - whole.mean())) < 0.02 * float(jnp.ptp(whole))
            assert float(jnp.ptp(part)) > 0.9 * float(jnp.ptp(whole))


def starts(bank: Bank) -> np.ndarray:
    assert isinstance(bank.model, IndependentClones)
    return np.asarray(bank.model.start)


def test_a_schedule_is_no_worse_than_its_starts_and_judged_as_it_was_planned() -> None:
    bank = Bank(rivals(), np.full((1, 4), 0.25))
    rule = HysteresisPolicy(0.5, 1.0)
    plan = schedules.personal(bank, 0, 4, rule)
    tried = schedules.starts(rule, rivals())
    risks, _ = judged_vectors(schedules.problem(rivals(), schedules.TailThenMean()), tried)
    assert plan.risk["value"] <= risks.min()
    assert set(np.unique(schedules.doses_of(plan))) <= {0.0, 1.0}
    plans = Plans({}, {"schedule": schedules.doses_of(plan)[None]}, np.zeros((1, 0)), [])
    mean = judged(plans, bank, confirmed=False).mean["schedule"][0]
    tail = judged(plans, bank, confirmed=False).worst["schedule"][0]
    planned = 0.98 * tail + 0.02 * mean
    assert -plan.risk["value"] == pytest.approx(planned, abs=VISIT)  # half of the steps: a visit at most
