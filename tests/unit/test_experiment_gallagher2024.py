"""The parts of the experiment on adaptive therapy: particles, planner, closed loop without information, features."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.gallagher2024 import daily
from experiments.gallagher2024.clones import clones, retold
from experiments.gallagher2024.course import replanned, ruled, scheduled
from experiments.gallagher2024.elsewhere import RECORD
from experiments.gallagher2024.learned import NetworkPolicy, VirtualPatients, features
from experiments.gallagher2024.particles import Particles, Record, effective, learned, renewed, resampled, started
from experiments.gallagher2024.planner import DUTIES, Imagined, SchedulePlanner, open_loop, polished, problem_of
from experiments.gallagher2024.population import (
    BASELINE,
    CENTER,
    NOISE,
    PUBLISHED,
    Truths,
    drawn,
    lived_coarsely,
    lived_exactly,
    patients,
    tumors,
)
from tumortwin.control import ConstantPolicy, CVaR, HysteresisPolicy, LearnedPolicy, Mean, judged_vectors

KEY = jax.random.key(11)
VISITS = 24


@pytest.fixture(autouse=True)
def _promotion():
    """The experiment's arrays are [patient candidate draw]; what all share lacks leading axes, by design."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_the_published_patient_is_the_center_of_the_population():
    center = tumors(jnp.asarray(CENTER))
    for name in ("sensitive_rate", "resistant_rate", "start_resistant", "start_sensitive", "carrying_capacity"):
        assert float(getattr(center, name)) == pytest.approx(float(getattr(PUBLISHED, name)), rel=1e-12)


@pytest.mark.slow
def test_long_steps_agree_with_days():
    """A day at most, in courses of on and off: the planner's two steps a visit against one a day."""
    model = tumors(drawn(200, key=KEY))
    exact = coarse = model.initial()
    for dose in (1.0, 0.0, 0.0, 0.0):
        a = lived_exactly(model, exact, jnp.full(200, dose))
        b = lived_coarsely(model, coarse, jnp.full(200, dose))
        both = np.asarray(a.passed & b.passed)
        np.testing.assert_allclose(model.burden(a.state)[both], model.burden(b.state)[both], rtol=2e-3)
        assert np.abs(np.asarray(a.days - b.days)).max() <= 1.6  # days are whole in the truth
        exact, coarse = a.state, b.state
    assert both.sum() < 180  # progression was met


@pytest.mark.slow
def test_closed_loop_visits_agree_with_a_schedule_and_daily_rules_with_visits():
    truths = patients(6, VISITS, key=KEY)
    always = ruled(truths, ConstantPolicy(1.0), NOISE)
    np.testing.assert_array_equal(always.days, scheduled(truths, np.ones(VISITS)).days)
    assert int(daily.under(PUBLISHED, ConstantPolicy(1.0)).days) == 1076


# --- particles ---


def test_systematic_resampling_keeps_every_share_to_one_particle():
    weights = np.random.default_rng(0).dirichlet(np.ones(40), size=3)
    index = np.asarray(resampled(jnp.log(jnp.asarray(weights)), 100, jnp.asarray(0.5)))
    for row, share in zip(index, weights, strict=True):
        counts = np.bincount(row, minlength=40)
        assert (np.abs(counts - 100 * share) <= 1.0 + 1e-6).all()


@pytest.mark.slow
def test_renewed_particles_follow_the_posterior():
    """Moments of (rS, rR, R0) after eight readings against plain importance sampling with many draws of the prior."""
    visits, n = 8, 4000
    truths = patients(1, visits + 1, key=jax.random.key(2))
    dose = jnp.asarray([[1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    burden = scheduled(truths, np.r_[np.asarray(dose[0]), 1.0]).burden[:, 1:]
    assert np.isfinite(burden).all()
    reading = jnp.log(jnp.asarray(burden)) + NOISE * truths.errors[:, :visits]
    record = Record(dose, reading, jnp.asarray(NOISE**-2.0))
    many = started(drawn(200_000, key=jax.random.key(3)), 1)
    few = started(drawn(n, key=jax.random.key(4)), 1)
    for k in range(visits):
        many, few = (learned(p, record, jnp.asarray(k)) for p in (many, few))
        if float(effective(few)[0]) < 0.5 * n:
            few = renewed(few, record, jnp.asarray(k + 1), jax.random.fold_in(KEY, k))
    (mean, spread), (ours, our_spread) = (_moments(p) for p in (many, few))
    assert float(effective(few)[0]) > 0.4 * n
    np.testing.assert_allclose(our_spread, spread, rtol=0.15)
    assert (np.abs(ours - mean) < 0.15 * spread).all()
    assert spread[0] < 0.6 * 0.15  # the readings did teach


def _moments(particles: Particles):
    share = np.asarray(jax.nn.softmax(particles.log_weight[0]))
    theta = np.asarray(particles.theta[0])
    mean = share @ theta
    return mean, np.sqrt(share @ (theta - mean) ** 2)


# --- planner ---


@pytest.mark.slow
def test_without_information_the_closed_loop_is_the_open_loop():
    """Infinite noise: the same decisions for every patient, exactly those that were known beforehand."""
    planner = SchedulePlanner(Mean(), draws=16, first=2)
    prior = drawn(64, key=jax.random.key(5))
    truths = patients(5, VISITS, key=jax.random.key(6))
    plan = open_loop(planner, prior, VISITS)
    blind = replanned(truths, planner, prior, np.inf, key=KEY)
    told = scheduled(truths, plan)
    np.testing.assert_array_equal(blind.days, told.days)
    lived = np.isfinite(blind.burden)
    np.testing.assert_array_equal(blind.dose[lived], np.broadcast_to(plan, lived.shape)[lived])
    seeing = replanned(truths, planner, prior, NOISE, key=KEY)
    assert (seeing.dose[lived] != blind.dose[lived]).any()


def test_candidates_are_all_first_decisions_and_every_duty():
    planner = SchedulePlanner(CVaR(0.8), first=2)
    tried = np.asarray(planner.propose(jnp.zeros(VISITS), jnp.asarray(4)))
    assert tried.shape == (4 * len(DUTIES), VISITS) and set(np.unique(tried)) == {0.0, 1.0}
    assert len({tuple(row) for row in tried[:, 4:]}) == len(tried)
    np.testing.assert_allclose(tried[: len(DUTIES), 6:].mean(axis=1), DUTIES, atol=1.0 / 18)


def test_polishing_helps_on_its_own_draws():
    found, changes = polished(np.zeros(12), Mean(), draws=16, most=20, key=KEY)
    known = Imagined.at_first(drawn(16, key=KEY).astype(jnp.float32))
    risks, _ = judged_vectors(problem_of(Mean(), 12, known), np.stack([np.zeros(12), found]))
    assert risks[1] < risks[0] and 0 < changes <= 20


# --- another class ---


@pytest.mark.slow
def test_clones_are_found_again():
    """A record of clones without noise gives the clones."""
    theta = jnp.asarray([[np.log(0.009), np.log(0.03), np.log(0.005), -7.0]])
    truths = Truths(clones(theta), jnp.zeros((1, 60)))
    record = ruled(truths, RECORD, NOISE)
    told = retold(truths, record)
    for name in ("growth_rate", "drug_kill", "resistant_rate"):
        assert float(getattr(told.truths.model, name)[0]) == pytest.approx(
            float(getattr(truths.model, name)[0]), rel=0.05
        )
    assert told.misfit[0] < 0.05


# --- what the learner sees ---


@pytest.mark.slow
def test_training_and_treating_show_the_network_the_same():
    """The features of a training step are those that `NetworkPolicy` makes of the same reading."""
    training = VirtualPatients()
    net = eqx.nn.MLP(training.features, training.actions, 4, 1, key=KEY)
    policy = NetworkPolicy(LearnedPolicy(net, net))
    state = training.start(key=KEY)
    memory, dose = policy.decide(policy.start(jnp.asarray(BASELINE)), jnp.asarray(BASELINE))
    for k in range(4):
        taken = LearnedPolicy(net, net).action(training.observe(state))
        assert float(dose) == float(taken)
        state, _, _ = training.step(state, taken, key=jax.random.fold_in(KEY, k))
        memory, dose = policy.decide(memory, BASELINE * jnp.exp(state.memory.last))
        shown = features(memory[0]._replace(dose=state.memory.dose))
        np.testing.assert_allclose(shown, training.observe(state), rtol=1e-4, atol=1e-5)


def test_a_threshold_waits_for_the_first_reading():
    truths = patients(3, VISITS, key=KEY)
    assert (ruled(truths, HysteresisPolicy(0.8, 0.8), NOISE).dose[:, 0] == 1.0).all()
