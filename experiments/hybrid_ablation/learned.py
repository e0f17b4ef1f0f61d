"""Mechanism, network and both: one loss, one trainer, one solver; they differ in what the rate is made of."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.hybrid_ablation.rows import HYBRID, MECHANISM, NETWORK, Law, Rows
from tumortwin.inference import Checkpoint, Fitted, Training, fit, shuffled, split_subjects, whole
from tumortwin.models import AbstractCompartmentModel, with_closure
from tumortwin.solvers import simulate_compartment

SPREAD = 0.3  # of the prior of a weight
EARLY_STOP_SHARE = 0.2  # of the training subjects, who only decide when to stop
SETTINGS = Training(rate=0.01, epochs=300, patience=40, average=0.98)
QUICK = Training(rate=0.01, epochs=25, patience=10, average=0.95)


class Forecaster(eqx.Module):
    """`kind` of a law: a prediction [row, time] on the scale h from parameters z (mechanism) and w (network)."""

    closure: Any
    law: Law = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def model(self, parameters: dict[str, Array], rows: Rows) -> AbstractCompartmentModel:
        """The model of the rows, each with its own start."""
        base = self.law.blank(rows) if self.kind == NETWORK else self.law.mechanism(parameters["z"], rows)
        if self.closure is None:
            return base
        closure = eqx.tree_at(lambda c: c.network.weights, self.closure, parameters["w"])
        return with_closure(base, closure, jnp.asarray(rows.features))

    def __call__(
        self, parameters: dict[str, Array], rows: Rows, fixed_steps: int | None = None
    ) -> Float[Array, "row time"]:
        """The curve on the rows' days."""
        rows = jax.tree.map(jnp.asarray, rows)
        given = (rows.given_days, rows.given) if rows.given.shape[1] else None
        model = self.model(parameters, rows)
        burden = simulate_compartment(model, rows.days, rows.level, given, fixed_steps=fixed_steps).burden
        return jnp.asarray(self.law.hold(burden))

    def first(self) -> dict[str, Array]:
        """Prior medians, and a network that says nothing."""
        found = {} if self.kind == NETWORK else {"z": jnp.zeros(self.law.count)}
        return found if self.closure is None else {**found, "w": self.closure.network.weights}


class Loss(eqx.Module):
    """Pseudo-Huber error of a reading, and the normal prior of z and w shared out over `readings`."""

    forecaster: Forecaster
    readings: Array
    penalized: bool = eqx.field(static=True)

    def __call__(self, parameters: dict[str, Array], rows: Rows) -> Array:
        """Mean over the readings of the rows, in units of the tolerance."""
        law = self.forecaster.law
        off = (self.forecaster(parameters, rows, law.steps) - rows.seen) / law.tolerance
        valid = jnp.asarray(rows.valid)
        error = jnp.sum(valid * (jnp.sqrt(1.0 + off**2) - 1.0)) / jnp.maximum(jnp.sum(valid), 1.0)
        if not self.penalized:
            return error
        prior = sum(0.5 * jnp.sum((v / (SPREAD if k == "w" else 1.0)) ** 2) for k, v in parameters.items())
        return error + prior / self.readings


def forecaster(law: Law, kind: str, key: Array) -> Forecaster:
    """One that has learned nothing yet."""
    return Forecaster(None if kind == MECHANISM else law.closures(kind, key), law, kind)


def learn(
    made: Forecaster,
    rows: Rows,
    subject: np.ndarray,
    first: dict[str, Array],
    settings: Training,
    *,
    key: Array,
    checkpoint: Checkpoint | None = None,
    name: str = "training",
) -> Fitted:
    """Parameters from the training rows, a fifth of whose subjects decide when to stop."""
    moving, held = split_subjects(subject, EARLY_STOP_SHARE, key=jax.random.fold_in(key, 0))
    used = rows.where(moving)
    readings = jnp.asarray(float(used.valid.sum()))
    # Rows beyond a whole number of batches wait for another epoch; fewer than a batch are filled up.
    size = made.law.batch
    used = used if len(used.start) >= size else used.filled(size)
    return fit(
        Loss(made, readings, True),
        first,
        shuffled(used, size, key=jax.random.fold_in(key, 1)),
        held_out=whole(rows.where(held).filled(size), size),
        settings=settings,
        score=Loss(made, readings, False),
        checkpoint=checkpoint,
        name=name,
    )


def predicted(made: Forecaster, parameters: dict[str, Array], rows: Rows, *, tight: bool = False) -> np.ndarray:
    """[row, time] on the scale h; `tight`: with steps that keep the solver's tolerance."""
    run, size = _program(), made.law.batch
    steps = None if tight else made.law.steps
    parts = [np.asarray(run(made, parameters, batch.data, steps)) for batch in whole(rows.filled(size), size)]
    return np.concatenate(parts)[: len(rows.start)]


@functools.cache
def _program() -> Callable[..., Array]:
    return eqx.filter_jit(lambda made, parameters, rows, steps: made(parameters, rows, steps))


def all_kinds(
    law: Law,
    rows: Rows,
    subject: np.ndarray,
    settings: Training,
    *,
    key: Array,
    checkpoint: Checkpoint | None = None,
    name: str,
    warm: bool = True,
) -> dict[str, tuple[Forecaster, dict[str, Array]]]:
    """Mechanism, network and hybrid from the same rows; the hybrid begins where the mechanism ended (`warm`), or at the
    prior medians, where parameters are known beforehand and a mechanism alone would bend them to what it lacks."""
    found: dict[str, tuple[Forecaster, dict[str, Array]]] = {}
    for k, kind in enumerate((MECHANISM, NETWORK, HYBRID)):
        made = forecaster(law, kind, jax.random.fold_in(key, 10 + k))
        first = made.first()
        if kind == HYBRID and warm:
            first = {**first, **found[MECHANISM][1]}
        # The same subjects decide when to stop, whatever is trained.
        got = learn(made, rows, subject, first, settings, key=key, checkpoint=checkpoint, name=f"{name}_{kind}")
        found[kind] = (made, got.parameters)
    return found
