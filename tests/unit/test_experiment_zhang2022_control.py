"""Rules at visits: clones that grow exponentially progress when they must, and a rule takes less drug."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.zhang2022_control.policies import HORIZON, NEVER, PROGRESSION, VISIT, _separate, followed, policies
from tumortwin.control import HysteresisPolicy
from tumortwin.models import IndependentClones

GROWTH, KILL, RESISTANT, SHARE = 0.01, 0.04, 0.004, 0.1


def run(stop: float, restart: float) -> tuple[float, float]:
    one = jnp.ones(1)
    model = IndependentClones(GROWTH * one, KILL * one, RESISTANT * one, SHARE * one)
    move = eqx.Partial(_separate, model, duration=jnp.asarray(VISIT))
    days, on = followed(HysteresisPolicy(stop, restart), ((1.0 - SHARE) * one, SHARE * one), move)
    return float(days[0]), float(on[0])


def test_continuous_drug_progresses_when_the_resistant_clone_is_back() -> None:
    days, on = run(NEVER, 1.0)
    exact = np.log(PROGRESSION / SHARE) / RESISTANT  # nothing sensitive is left by then
    assert exact <= days <= exact + VISIT
    assert on == 1.0


def test_the_trial_rule_takes_less_drug_and_gains_nothing_without_competition() -> None:
    days, on = run(0.5, 1.0)
    assert on < 0.8
    assert days <= run(NEVER, 1.0)[0]


def test_the_first_two_policies_are_continuous_drug_and_the_trial_rule() -> None:
    names, stop, restart = policies()
    assert names[:2] == ["continuous", "adaptive"]
    assert float(stop[1]) == pytest.approx(0.5)
    assert float(restart[1]) == 1.0
    assert len(names) == stop.size == restart.size
    assert HORIZON * VISIT >= 1800
