"""The pieces of `experiments/amortised` and `experiments/delayed_acceptance` against formulas of their own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from experiments.amortised import mouse, scans
from experiments.amortised.study import distinct
from experiments.delayed_acceptance.cases import Case
from experiments.delayed_acceptance.emulator import fit, predicted, reduced, solved
from experiments.delayed_acceptance.run import independence
from tumortwin.inference import NutsCalibrator, Posterior, Prior, Problem
from tumortwin.observation import AdcObservation, Datum
from tumortwin.params import parameter
from tumortwin.surrogates import counted, predicted_values

DAYS = np.asarray([8.0, 11.0, 14.0, 17.0, 20.0, 23.0])


def test_a_mouse_has_the_density_of_its_formula():
    volumes = np.asarray([70.0, 250.0, 500.0, 900.0, 1600.0, 2300.0])
    problem = mouse.with_volumes(mouse.template(), jnp.asarray(volumes))
    alpha, beta, sd, cv = 0.7, 0.085, 25.0, 0.12
    values = {mouse.RATE: alpha, mouse.DECELERATION: beta, mouse.SD: sd, mouse.CV: cv}
    found = jax.jit(lambda given: problem.log_likelihood(given))(
        {path: jnp.asarray(value) for path, value in values.items()}
    )
    curve = np.exp(alpha / beta * (1 - np.exp(-beta * DAYS)))
    error = np.sqrt(sd**2 + (cv * curve) ** 2)
    assert float(found) == pytest.approx(stats.norm.logpdf(volumes, curve, error).sum(), rel=1e-12)
    caliper = problem.observations["volume"]
    assert float(caliper.information(jnp.asarray(300.0))) == pytest.approx(1 / (20.0**2 + 30.0**2))
    assert float(caliper.log_scale(jnp.asarray(300.0))) == pytest.approx(0.5 * np.log(1300.0))


def test_on_the_scale_of_the_features_the_error_does_not_depend_on_the_volume():
    features = mouse.Stabilized(jnp.asarray(200.0), jnp.asarray(0.1))
    for volume in (0.0, 150.0, 3000.0):
        slope = jax.jacfwd(features)(jnp.asarray([volume]))[0, 0]
        assert float(slope) * np.hypot(20.0, 0.1 * volume) == pytest.approx(1.0)


def test_draws_of_equal_weight_follow_the_weights_and_do_not_repeat():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40_000, 1))
    log_weights = 0.5 * rows[:, 0] - 0.125  # from N(0, 1) to N(0.5, 1)
    log_weights = np.minimum(log_weights, 1.2)
    log_weights -= np.logaddexp.reduce(log_weights)
    posterior = Posterior({"x": rows[None, :, 0]}, log_weights[None], {}, "")
    kept = distinct(posterior, rows, 40_000, rng)
    assert 5000 < len(kept) == len(np.unique(kept)) < 20_000
    assert kept.mean() == pytest.approx(posterior.mean("x"), abs=4 / np.sqrt(len(kept)))
    assert len(distinct(posterior, rows, 100, rng)) == 100


@pytest.mark.slow
def test_the_members_of_the_bank_are_solves_at_their_coordinates():
    found, bank = scans.case(4, 8, NutsCalibrator(), chunk=2, advance=lambda done: None, key=jax.random.key(0))
    chosen = counted(found.base)
    for z, prediction in zip(found.simulate.z[:2], bank.predictions, strict=False):
        np.testing.assert_allclose(predicted_values(found.base, chosen, z), prediction, atol=2e-6)


def test_independence_chains_have_the_law_of_the_target():
    rng = np.random.default_rng(1)
    z = 1.5 * rng.standard_t(5, size=(4, 6000, 1))
    ratios = stats.norm.logpdf(z[..., 0], 0.4, 0.7) - stats.t.logpdf(z[..., 0] / 1.5, 5)
    chains = independence(z, ratios, rng)
    assert chains.mean() == pytest.approx(0.4, abs=0.04) and chains.std() == pytest.approx(0.7, rel=0.04)


class Front(eqx.Module):
    """A front along a line: where it is and how steep."""

    place: jax.Array = parameter(unit="mm")
    width: jax.Array = parameter(unit="mm")


def front(model: Front, days: tuple[float, ...]) -> jax.Array:
    line = jnp.arange(30.0)[None, :] - 5.0 * jnp.asarray(days)[:, None]
    return jax.nn.sigmoid((model.place - line) / model.width)


def test_the_emulator_knows_its_points_and_what_lies_between():
    noise = {"observation.adc.noise_sd": dist.LogNormal(np.log(0.1), 0.2)}
    prior = Prior({"place": dist.LogNormal(np.log(12.0), 0.2), "width": dist.LogNormal(np.log(3.0), 0.2), **noise})
    model, rng = Front(jnp.asarray(12.0), jnp.asarray(3.0)), np.random.default_rng(0)
    clean = np.asarray(front(model, (0.0, 1.0)))
    data = tuple(Datum(day, "adc", row + 0.1 * rng.normal(size=30)) for day, row in zip((0.0, 1.0), clean, strict=True))
    problem = Problem(model, {"adc": AdcObservation(jnp.asarray(0.1))}, prior, data, front)
    case = Case("front", problem, lambda model: jnp.log(jnp.stack([model.place, model.width])))
    known, asked = (jnp.asarray(rng.uniform(-1.5, 1.5, size=(n, 3))) for n in (40, 20))
    fitted = fit(case, np.asarray(known), solved(problem, np.asarray(known)), 50)
    for z, most in ((known, 1e-4), (asked, 5e-3)):
        off = np.abs(predicted(problem, fitted, np.asarray(z)) - solved(problem, np.asarray(z)))
        assert off.max() < most
    assert fitted.emulator.points.shape == (50, 2) and not np.any(np.asarray(fitted.emulator.alpha[40:]))
    # The few numbers of the reduced problem hold all that the data say: here with a noise of unknown size.
    few = reduced(problem, fitted)
    here, there = (np.asarray(jax.vmap(lambda z, p=p: p.log_density(z))(known)) for p in (problem, few))
    np.testing.assert_allclose(there - there[0], here - here[0], atol=2e-2)
