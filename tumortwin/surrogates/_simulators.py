"""Parameters of the prior and data of the model: what amortised posteriors are trained on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference import Checkpoint, Problem
from tumortwin.surrogates._features import Counted, counted

_NAME = "simulation_bank"


class FreshSimulator(eqx.Module):
    """A batch of the prior and its data, every batch solved anew: for models whose solve takes microseconds.

    **Arguments:** `problem`, whose data tell which values count and are otherwise not looked at; its power-likelihood
    weights must be 1, since no data are drawn from a power of a likelihood; `batch` draws at a time.
    """

    problem: Problem
    counted: Counted
    batch: int = eqx.field(static=True)

    def __init__(self, problem: Problem, batch: int = 256) -> None:
        self.problem, self.counted, self.batch = _of_weight_one(problem), counted(problem), batch

    def __call__(self, key: Array) -> tuple[Float[Array, "draw parameter"], Float[Array, "draw value"]]:
        z_key, noise_key = jax.random.split(key)
        z = self.problem.sample_prior(self.batch, key=z_key)

        def one(own: Array, noise: Array) -> Array:
            clean = predicted_values(self.problem, self.counted, own)
            return noisy_values(self.problem, self.counted, own, clean, key=noise)

        return z, jax.vmap(one)(z, jax.random.split(noise_key, self.batch))


class BankSimulator(eqx.Module):
    """A batch from a bank of solves, with new noise every time: for models whose solve is dear.

    Entries of z that only change how states are observed (the size of a noise) are drawn from the prior for each batch;
    the others come with their member, whose noise-free data are kept. A member is seen many times, never with the
    same noise.

    **Arguments:** `problem` as in `FreshSimulator`; `z` and `predictions` of the members (`simulation_bank`).

    **Limits:** (for convenience) the entries drawn anew must not change the prediction itself, as a threshold does:
    refused where they do, at the first members.
    """

    problem: Problem
    counted: Counted
    z: Float[Array, "member parameter"]
    predictions: Float[Array, "member value"]
    batch: int = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        z: Float[np.ndarray, "member parameter"],
        predictions: Float[np.ndarray, "member value"],
        batch: int = 256,
    ) -> None:
        self.problem, self.counted, self.batch = _of_weight_one(problem), counted(problem), batch
        self.z, self.predictions = jnp.asarray(z), jnp.asarray(predictions)

    def __call__(self, key: Array) -> tuple[Float[Array, "draw parameter"], Float[Array, "draw value"]]:
        row_key, z_key, noise_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (self.batch,), 0, self.z.shape[0])
        _, only_observed = self.problem.entries()
        anew = self.problem.sample_prior(self.batch, key=z_key)[:, only_observed]
        z = self.z[rows].at[:, only_observed].set(anew)
        keys = jax.random.split(noise_key, self.batch)
        seen = jax.vmap(lambda own, clean, k: noisy_values(self.problem, self.counted, own, clean, key=k))
        return z, seen(z, self.predictions[rows].astype(float), keys)


def simulation_bank(
    problem: Problem, members: int, *, chunk: int = 256, key: Array, checkpoint: Checkpoint | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the prior and their noise-free data, [member, parameter] and [member, value] (single precision).

    `checkpoint` keeps what is done after every chunk; the i-th chunk depends on the key and on i alone.

    **Raises:** `ValueError` when a solve fails (which one, and its z), or when the prediction changes with an entry of
    z that `BankSimulator` draws anew.
    """
    if members % chunk:
        raise ValueError(f"required: members that are a multiple of chunk; received: {members} and {chunk}")
    chosen = counted(problem)
    _require_unmoved(problem, chosen, key)
    saved = None if checkpoint is None else checkpoint.load(_NAME)
    z, predictions = ([], []) if saved is None else ([saved["z"]], [saved["predictions"]])
    for first in range(0 if saved is None else len(saved["z"]), members, chunk):
        drawn = problem.sample_prior(chunk, key=jax.random.fold_in(key, first))
        found = np.asarray(_predicted(problem, chosen, drawn), np.float32)
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if bad.size:
            raise ValueError(
                f"required: solves that succeed over the whole prior; received: {bad.size} that failed, the first "
                f"member {first + bad[0]} at z = {np.asarray(drawn)[bad[0]].tolist()}; try: a prior with bounds"
            )
        z.append(np.asarray(drawn))
        predictions.append(found)
        if checkpoint is not None:
            checkpoint.save(_NAME, {"z": np.concatenate(z), "predictions": np.concatenate(predictions)})
    return np.concatenate(z)[:members], np.concatenate(predictions)[:members]


def predicted_values(problem: Problem, chosen: Counted, z: Float[Array, " parameter"]) -> Float[Array, " value"]:
    """Noise-free data at `z`, in the order of `observed_values`."""
    predictions, _ = problem.predict(problem.prior.constrain(z))
    return chosen(problem.by_datum(predictions))


def noisy_values(
    problem: Problem,
    chosen: Counted,
    z: Float[Array, " parameter"],
    predicted: Float[Array, " value"],
    *,
    key: Array,
) -> Float[Array, " value"]:
    """Data drawn about `predicted`, each datum with the noise of its channel and visit."""
    _, observations = problem.bind(problem.prior.constrain(z))
    visits: dict[str, int] = {}
    parts, first = [], 0
    for i, (datum, size) in enumerate(zip(problem.data, chosen.sizes, strict=True)):
        visit = visits.get(datum.channel, 0)
        visits[datum.channel] = visit + 1
        noise = observations[datum.channel].at_visit(visit).noise(predicted[first : first + size])
        parts.append(noise.sample(jax.random.fold_in(key, i)))
        first += size
    return jnp.concatenate(parts).astype(float)


@eqx.filter_jit
def _predicted(problem: Problem, chosen: Counted, z: Array) -> Array:
    return jax.lax.map(lambda own: predicted_values(problem, chosen, own), z)


def _of_weight_one(problem: Problem) -> Problem:
    weights = np.asarray(problem.weights)
    if not np.allclose(weights, 1.0):
        raise ValueError(
            f"required: a problem whose data have weight 1, as no data can be drawn from a power of a likelihood; "
            f"received: weights from {weights.min():.3g} to {weights.max():.3g}"
        )
    return problem


def _require_unmoved(problem: Problem, chosen: Counted, key: Array) -> None:
    _, only_observed = problem.entries()
    z = problem.sample_prior(2, key=key)
    moved = z[:1].at[:, only_observed].set(z[1:, only_observed])
    first, second = np.asarray(_predicted(problem, chosen, jnp.concatenate([z[:1], moved])))
    if np.isfinite(first).all() and not np.array_equal(first, second):
        names = ", ".join(problem.names[i] for i in only_observed)
        raise ValueError(
            f"required: a prediction that does not change with what is drawn anew for every batch ({names}); "
            "received: one that does; try: FreshSimulator"
        )
