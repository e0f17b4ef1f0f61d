"""Calls of `experiments/nac128`: the set of schedules, equal doses, limits by hand, an exact kill, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.nac128.model import ANTHRACYCLINE, HALF_LIFE, TAXANE, Timed, burden, draws, killed
from experiments.nac128.run import LIMITS, LastLogBurden, broken_limits
from experiments.nac128.schedules import Neoadjuvant, every_schedule
from tumortwin.control import Nearest, Region
from tumortwin.treatments import Course


@pytest.mark.slow
def test_the_set_is_128_schedules_of_equal_dose_that_all_differ():
    every, parts = every_schedule(), Neoadjuvant()
    assert every.shape == (128, 6)
    events = set()
    for vector in every:
        courses = parts.courses(jnp.asarray(vector))
        assert {a: float(jnp.sum(c.doses)) for a, c in courses.items()} == pytest.approx({ANTHRACYCLINE: 4, TAXANE: 12})
        given = [tuple(np.sort(np.asarray(c.times)[np.asarray(c.doses) > 0])) for c in courses.values()]
        events.add(tuple(given))
        last = max(day for course in given for day in course)
        assert float(parts.schedule(jnp.asarray(vector)).end) == pytest.approx(last)
    assert len(events) == 128


def test_a_schedule_by_hand():
    """Taxane first: 4 doses every 21 d from day 7, 7 d pause, then 8 half doses every 7 d."""
    courses = Neoadjuvant().courses(jnp.asarray([1.0, 0.0, 1.0, 3.0, 0.0, 1.0]))
    taxane, pair = courses[TAXANE], courses[ANTHRACYCLINE]
    given = np.asarray(taxane.doses) > 0
    np.testing.assert_allclose(np.asarray(taxane.times)[given], [7, 28, 49, 70])
    np.testing.assert_allclose(np.asarray(taxane.doses)[given], 3.0)
    given = np.asarray(pair.doses) > 0
    np.testing.assert_allclose(np.asarray(pair.times)[given], 77 + 7 * np.arange(8))
    np.testing.assert_allclose(np.asarray(pair.doses)[given], 0.5)


def test_limits_agree_with_the_list_of_doses():
    """What the region admits is exactly what breaks no limit when doses are looked at one by one."""
    every = every_schedule()
    admitted = Region.of(Neoadjuvant(), LIMITS["limited"]).keeps(every)
    assert 0 < admitted.sum() < 128
    np.testing.assert_array_equal(admitted, [broken_limits(v) == 0 for v in every])


def test_the_nearest_admissible_schedule_is_the_nearest_of_all():
    """The closed days are no convex limit: tangents to it lead astray."""
    region = Region.of(Neoadjuvant(), LIMITS["limited"])
    every, nearest = every_schedule(), Nearest.of(region)
    admitted = every[region.keeps(every)]
    between = np.random.default_rng(0).uniform(-0.2, 1.2, (20, 6)) * region.upper
    for target in [*every[::3], *between]:
        found = nearest.whole(target)
        assert found is not None and region.contains(found)
        assert np.abs(found - target).sum() == pytest.approx(np.abs(admitted - target).sum(axis=1).min(), abs=1e-12)


def test_kills_integrate_the_exponentials():
    """One dose of 2 on day 1.3: over all time 2 / beta; and by trapezoids on a fine grid in between."""
    decay, course = 0.7, Course(jnp.asarray([1.3]), jnp.asarray([2.0]))
    assert float(killed(course, decay, jnp.asarray([0.0, 100.0]))[0]) == pytest.approx(2.0 / decay)
    t = np.linspace(2.0, 3.0, 2001)
    by_hand = np.trapezoid(2.0 * np.exp(-decay * (t - 1.3)), t)
    assert float(killed(course, decay, jnp.asarray([2.0, 3.0]))[0]) == pytest.approx(by_hand, rel=1e-6)


def test_log_kill_without_escape_on_exponential_growth_is_exact():
    """One sensitive population far below capacity: ln N(end) - ln N(0) = k t - alpha D / beta (nearly all of it)."""
    draw = jax.tree.map(lambda x: x[0], draws(1, 0)) | {
        name: jnp.asarray(0.0) for name in ("escape_anthracycline", "escape_taxane")
    }
    draw["filled"] = jnp.asarray(1e-9)
    schedule = Timed(
        {ANTHRACYCLINE: Course(jnp.zeros(1), jnp.ones(1)), TAXANE: Course(jnp.zeros(1), jnp.zeros(1))},
        jnp.asarray(60.0),
    )
    found = burden(draw, schedule)
    decay = np.log(2.0) / HALF_LIFE[ANTHRACYCLINE]
    change = float(jnp.log(found.burden[-1] / found.burden[0]))
    assert change == pytest.approx(
        float(draw["growth_rate"]) * 81.0 - float(draw["kill_anthracycline"]) / decay, rel=1e-5
    )


@pytest.mark.slow
def test_gradient_between_whole_numbers():
    draw, parts = jax.tree.map(lambda x: x[0], draws(1, 1)), Neoadjuvant(whole=False)
    loss = jax.jit(lambda u: LastLogBurden()(functools.partial(burden, steps=60)(draw, parts.schedule(u))))
    u = jnp.asarray([0.3, 0.4, 0.6, 1.4, 0.2, 0.7])
    slopes = jax.grad(loss)(u)
    for k in range(6):
        step = 1e-5 * jnp.eye(6)[k]
        assert float(slopes[k]) == pytest.approx(float((loss(u + step) - loss(u - step)) / 2e-5), rel=1e-4, abs=1e-7)
