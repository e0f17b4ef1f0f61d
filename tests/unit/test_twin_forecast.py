"""What a posterior expects: volumes against closed forms, one key one answer, and nothing known of the future."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as case
from jaxtyping import Array

from tumortwin.inference import AbstractCalibrator, MapCalibrator, Posterior, calibrate
from tumortwin.twin import Scan, Twin, forecast, replay_cases

DAYS = (0.0, 30.0)
RADIUS, LENGTH = 15.0, 2.0  # [mm]
DRAWS = 400


class Still(eqx.Module):
    """A solve that always returns one field; NaN for growth rates above `broken_above`."""

    field: Array
    broken_above: Array  # not static: sound or broken, it is one program

    def __call__(self, model, days):
        fine = model.mechanisms["proliferation"].rate < self.broken_above
        return jnp.where(fine, jnp.stack([self.field] * len(days)), jnp.nan)


@pytest.fixture(scope="module")
def problem():
    return case.problem()


@pytest.fixture(scope="module")
def still(problem):
    """A ball whose logit falls linearly: sigmoid((R - r) / length), in the middle of a window."""
    shape = problem.model.tissue.grid.shape
    center = (np.asarray(shape) - 1) / 2 * 4.0
    fine = (np.arange(5) + 0.5) / 5 - 0.5  # a voxel holds the mean of the profile
    offsets = np.moveaxis(np.stack(np.meshgrid(fine, fine, fine)), 0, -1).reshape(-1, 3) * 4.0
    places = np.moveaxis(np.indices(shape), 0, -1) * 4.0 - center
    far = np.linalg.norm(places[..., None, :] + offsets, axis=-1)
    field = jnp.asarray((1.0 / (1.0 + np.exp((far - RADIUS) / LENGTH))).mean(axis=-1), jnp.float32)
    everywhere = jnp.ones(shape, bool)
    found = eqx.tree_at(
        lambda p: (p.solve, p.model.tissue.domain.mask), problem, (Still(field, jnp.asarray(1e9, float)), everywhere)
    )
    return found


def known_posterior(problem, n):
    """Threshold one half and unit width in every draw. The first of as many draws as any test needs."""
    found = case.prior_posterior(problem, DRAWS)
    fixed = {"observation.flair.threshold": 0.5, "observation.flair.width": 1.0}
    draws = {p: np.full_like(v, fixed[p]) if p in fixed else v for p, v in found.draws.items()}
    draws = {p: v[:, :n] for p, v in draws.items()}
    return dataclasses.replace(found, draws=draws)


@pytest.fixture(scope="module")
def found(still):
    volumes = {"flair@30": 900.0, "flair@60": 1100.0, "flair@0": float("nan")}
    posterior = dataclasses.replace(known_posterior(still, DRAWS), info={"correlation_volume_mm3": volumes})
    return forecast(still, posterior, DAYS, n_draws=DRAWS, chunk=200, key=jax.random.key(0))


class Scaled(eqx.Module):
    """A solve that returns one field times one plus the growth rate."""

    field: Array

    def __call__(self, model, days):
        scale = 1.0 + model.mechanisms["proliferation"].rate.astype(self.field.dtype)
        return jnp.stack([self.field * scale] * len(days))


def test_mean_and_spread_over_chunks_are_those_of_all_draws_together(problem, still):
    """However the draws are dealt out; against NumPy's mean and sd."""
    scaled = eqx.tree_at(lambda p: p.solve, problem, Scaled(still.solve.field / 4.0))
    posterior = known_posterior(scaled, 30)
    rates = np.linspace(0.0, 2.0, 30)
    draws = {**posterior.draws, "mechanisms.proliferation.rate": rates[None]}
    posterior = dataclasses.replace(posterior, draws=draws)
    few, all_at_once = (
        forecast(scaled, posterior, DAYS, n_draws=30, chunk=chunk, key=jax.random.key(0)) for chunk in (3, 30)
    )
    field = np.asarray(scaled.solve.field, float)
    used = 1.0 + np.asarray(few.draws["mechanisms.proliferation.rate"], float)
    np.testing.assert_allclose(few.mean[0], used.mean() * field, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(few.sd[0], used.std() * field, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(few.sd, all_at_once.sd, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(few.p_tumor, all_at_once.p_tumor, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(few.mass, all_at_once.mass)


def test_volumes_of_a_known_density(still, found):
    """Volume above the threshold 4/3 pi R^3; outlined on average 4/3 pi (R^3 + 3 R s^2), s = width x length."""
    sphere = 4.0 / 3.0 * np.pi
    np.testing.assert_allclose(found.volume["flair"], sphere * RADIUS**3, rtol=0.03)
    np.testing.assert_allclose(found.outlined["flair"], sphere * (RADIUS**3 + 3 * RADIUS * LENGTH**2), rtol=0.02)
    np.testing.assert_allclose(found.mass, float(still.solve.field.sum()) * 64.0, rtol=1e-5)
    np.testing.assert_allclose(found.mean, np.stack([still.solve.field] * 2), rtol=1e-4, atol=1e-5)
    assert found.sd.max() < 1e-6  # the same in every draw
    assert found.extent_channel == "flair" and found.p_tumor.max() <= 1.0 + 1e-5 and found.p_tumor.min() >= 0.0


def test_one_outline_varies_as_its_edge_and_its_correlation_volume_say(found):
    """Its own noise, V_corr times the integral of Phi (1 - Phi) = s / sqrt(pi) over the edge; and the shift's."""
    shift = 0.3 * np.random.default_rng(0).standard_normal(100_000)
    radius, blur = RADIUS + shift * LENGTH, LENGTH  # of one logit, and of one width
    volume = 4.0 / 3.0 * np.pi * (radius**3 + 3 * radius * blur**2)
    edge = 4.0 * np.pi * (radius**2 + blur**2) * blur / np.sqrt(np.pi)
    expected = np.sqrt(np.var(volume) + 1000.0 * np.mean(edge))
    sd = np.std(found.predictive["flair"], axis=0)
    np.testing.assert_allclose(sd, expected, rtol=0.12)
    low, middle, high = found.interval("flair")
    assert (low < middle).all() and (middle < high).all()
    assert all((v >= 0).all() for v in found.predictive.values())


def test_draws_that_fail_are_an_error_and_counted(still):
    posterior = known_posterior(still, DRAWS)
    rates = np.sort(posterior.draws["mechanisms.proliferation.rate"].ravel())
    broken = eqx.tree_at(lambda p: p.solve.broken_above, still, jnp.asarray(rates[-4:-2].mean()))
    with pytest.raises(FloatingPointError, match=f"3 of {DRAWS} failed"):
        forecast(broken, posterior, DAYS, n_draws=DRAWS, chunk=200, key=jax.random.key(0))


# --- the future stays unknown ---


def replayed(patient, calibrator):
    """Calibrated on the scans up to day 30, forecast to day 60."""
    known = patient.until(30.0)
    posterior = calibrate(case.problem(known), calibrator, key=jax.random.key(0))
    return known, posterior, looked_ahead(known, posterior, 1)


def looked_ahead(known, posterior, seed):
    days = (0.0, 30.0, 60.0)
    return forecast(case.problem(known), posterior, days, n_draws=4, chunk=4, key=jax.random.key(seed))


@pytest.fixture(scope="module")
def honest():
    calibrator = MapCalibrator(reweightings=0, max_steps=6)
    return calibrator, *replayed(case.patient(), calibrator)


def test_a_poisoned_future_scan_changes_nothing(honest):
    calibrator, _, posterior, found = honest
    one = case.patient()
    garbage = np.random.default_rng(0).random(case.GRID.shape)
    poison = Scan(60.0, {"t1gd": garbage > 0.5, "flair": garbage > 0.1}, np.full(case.GRID.shape, np.nan, np.float32))
    _, other, again = replayed(dataclasses.replace(one, scans=(*one.scans[:2], poison)), calibrator)
    assert posterior.draws.keys() == other.draws.keys()
    assert all(np.array_equal(posterior.draws[p], other.draws[p]) for p in posterior.draws)
    assert np.array_equal(found.p_tumor, again.p_tumor)
    assert all(np.array_equal(found.predictive[c], again.predictive[c]) for c in found.predictive)


def test_one_key_one_forecast(honest):
    _, known, posterior, found = honest
    again, other = looked_ahead(known, posterior, 1), looked_ahead(known, posterior, 2)
    assert np.array_equal(found.predictive["flair"], again.predictive["flair"])
    assert not np.array_equal(found.predictive["flair"], other.predictive["flair"])
    assert (found.volume["t1gd"] < found.volume["flair"]).all()


def test_a_known_scan_does_change_the_posterior(honest):
    """What makes the test above able to fail."""
    calibrator, _, posterior, _ = honest
    one = case.patient()
    smaller = dataclasses.replace(one, scans=(one.scans[0], case.scan(30.0, 8.0, 13.0), one.scans[2]))
    _, other, _ = replayed(smaller, calibrator)
    path = "mechanisms.proliferation.rate"
    assert not np.array_equal(posterior.draws[path], other.draws[path])


def test_replay_compares_with_the_hidden_scan_and_refuses_one_that_is_not_later(honest):
    _, known, _, found = honest
    frame, hidden = case.frame(known), case.patient().scans[2]
    priors = {"radial_velocity": 0.1, "doubling_time": 60.0}
    cases = replay_cases(known, [hidden], frame, found, **priors)
    assert [(c.channel, c.day) for c in cases] == [("flair", 60.0), ("t1gd", 60.0)]
    assert cases[0].observed.sum() == np.asarray(frame.box.crop(hidden.masks["flair"])).sum()
    assert np.array_equal(cases[1].volumes, found.predictive["t1gd"][:, 2])
    with pytest.raises(ValueError, match="hidden scans after day 30"):
        replay_cases(known, [known.scans[1]], frame, found, **priors)


# --- assimilation ---


class MeanOfData(AbstractCalibrator):
    """Stands for a calibrator: its posterior is a number that every datum has a part in."""

    def init(self, problem, *, key):
        return {"mean": np.asarray(np.nan)}

    def step(self, problem: Any, state):
        return {"mean": np.asarray(sum(float(d.values.sum()) * (1.0 + d.day) for d in problem.data))}

    def terminate(self, problem, state):
        return bool(np.isfinite(state["mean"]))

    def progress(self, problem, state):
        return (int(self.terminate(problem, state)), 1)

    def postprocess(self, problem, state):
        return Posterior({"mean": state["mean"][None, None]}, None, {}, "")


def quick():
    return MeanOfData()


def test_assimilation_is_idempotent_and_does_not_mind_the_order():
    first, second, third = case.patient().scans
    twin = Twin.of(case.patient([first]), case.SOLVER, case.prior(), spacing=4.0, margin=8.0, bucket=4)
    key = jax.random.key(0)
    one = twin.assimilate(second, quick(), key=key).assimilate(third, quick(), key=key)
    other = twin.assimilate(third, quick(), key=key).assimilate(second, quick(), key=key)
    assert eqx.tree_equal(one.problem(), other.problem())
    whole = Twin.of(case.patient([first, second, third]), case.SOLVER, case.prior(), spacing=4.0, margin=8.0, bucket=4)
    assert eqx.tree_equal(one.problem(), whole.problem())
    assert one.posterior is not None and other.posterior is not None
    assert all(np.array_equal(one.posterior.draws[p], other.posterior.draws[p]) for p in one.posterior.draws)
    assert one.assimilate(third, quick(), key=key) is one
    assert twin.posterior is None and len(twin.patient.scans) == 1
    with pytest.raises(ValueError, match="one scan a day"):
        one.assimilate(case.scan(30.0, 9.0, 14.0), quick(), key=key)
    with pytest.raises(ValueError, match="not before the first visit"):
        one.assimilate(case.scan(-5.0, 9.0, 14.0), quick(), key=key)
