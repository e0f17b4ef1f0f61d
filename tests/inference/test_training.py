"""Training: AdamW's steps, an end in time, the same numbers after a kill, and no batch with what is no number."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tumortwin._errors import InputError
from tumortwin.inference import Batch, Training, fit, shuffled, split_subjects, whole

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * RNG.normal(size=40)
ROWS = {"x": X, "y": Y}
START = {"slope": jnp.zeros(3), "size": 3}
QUICK = Training(rate=0.05, epochs=12, patience=12, average=0.9)


def loss(parameters: Any, data: Any) -> Any:
    return jnp.mean((jnp.asarray(data["x"]) @ parameters["slope"] - jnp.asarray(data["y"])) ** 2)


class Kept:
    """Checkpoints in memory; dies when it is told to."""

    def __init__(self, dies_at: int = 0) -> None:
        self.files: dict[str, dict[str, np.ndarray]] = {}
        self.saves, self.dies_at = 0, dies_at

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        assert all(isinstance(a, np.ndarray) and a.dtype != object for a in arrays.values())
        self.files[name] = {k: a.copy() for k, a in arrays.items()}
        self.saves += 1
        if self.saves == self.dies_at:
            raise KeyboardInterrupt

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        return self.files.get(name)


def run(**how: Any) -> Any:
    batches = shuffled({k: v[:30] for k, v in ROWS.items()}, 8, key=jax.random.key(1))
    held = whole({k: v[30:] for k, v in ROWS.items()})
    return fit(loss, START, batches, **{"held_out": held, "settings": QUICK, **how})


def test_it_finds_least_squares_and_leaves_what_is_no_float_alone():
    held = whole({k: v[:30] for k, v in ROWS.items()})
    found = run(settings=Training(rate=0.1, epochs=150, patience=150, average=0.95), held_out=held)
    expected = np.linalg.lstsq(X[:30], Y[:30], rcond=None)[0]
    np.testing.assert_allclose(found.parameters["slope"], expected, atol=0.03)
    assert found.parameters["size"] == 3 and found.refused == 0
    assert found.score == found.scores.min() == found.scores[found.epoch - 1]


def test_steps_and_average_are_those_of_optax_and_of_the_formula():
    settings = Training(rate=0.02, epochs=1, patience=1, weight_decay=0.1, average=0.5, largest_slope=0.7)
    batch = Batch("all", ROWS)
    kept = Kept()
    found = fit(loss, START, lambda epoch: [batch] * 4, held_out=[batch], settings=settings, checkpoint=kept)
    optimizer = optax.chain(optax.clip_by_global_norm(0.7), optax.adamw(0.02, weight_decay=0.1))
    weights = average = jnp.zeros(3)
    memory = optimizer.init(weights)
    for n in range(4):
        change, memory = optimizer.update(jax.grad(lambda w: loss({"slope": w}, ROWS))(weights), memory, weights)
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weights
        weights = jnp.asarray(optax.apply_updates(weights, change))
    np.testing.assert_allclose(found.parameters["slope"], average, rtol=1e-12)
    np.testing.assert_allclose(kept.files["training"]["moving.000"], weights, rtol=1e-12)


@pytest.mark.parametrize("dies_at", [1, 5, 12, 14])
def test_killed_and_resumed_it_is_the_same_to_the_bit(dies_at):
    settings = Training(rate=0.05, epochs=12, patience=12, average=0.9, save_every=1)
    expected, kept = run(settings=settings), Kept(dies_at)
    with pytest.raises(KeyboardInterrupt):
        run(settings=settings, checkpoint=kept)
    found = run(settings=settings, checkpoint=kept)
    assert np.array_equal(found.parameters["slope"], expected.parameters["slope"])
    assert np.array_equal(found.scores, expected.scores) and np.array_equal(found.losses, expected.losses)
    again = run(settings=settings, checkpoint=kept)  # nothing is left to do
    assert np.array_equal(again.parameters["slope"], expected.parameters["slope"])


def test_a_checkpoint_of_another_training_is_refused():
    kept = Kept()
    run(checkpoint=kept)
    batches, held = shuffled(ROWS, 8, key=jax.random.key(1)), whole(ROWS)
    for other in (jnp.zeros(4), jnp.ones(3)):
        with pytest.raises(ValueError, match="another training"):
            fit(loss, {"slope": other}, batches, held_out=held, settings=QUICK, checkpoint=kept)


def test_it_stops_early_and_returns_the_best():
    """A held-out part that only wants the start: every step is worse."""
    held = [Batch("start", {"x": X, "y": np.zeros(40)})]
    found = run(held_out=held, settings=Training(rate=0.05, epochs=60, patience=5, average=0.5))
    assert found.stopped_early and len(found.scores) == found.epoch + 5
    assert found.score == found.scores.min()
    assert not run().stopped_early and len(run().scores) == 12


def test_a_batch_with_no_number_is_refused_by_name():
    bad = X.copy()
    bad[17, 1] = np.nan
    names = [f"p{i:02d}" for i in range(40)]
    batches = shuffled({"x": bad, "y": Y}, 8, key=jax.random.key(1), names=names)
    with pytest.raises(InputError, match=r"epoch 1, batch \d \(.*p17.*array \['x'\]"):
        fit(loss, START, batches, held_out=whole(ROWS), settings=QUICK)
    with pytest.raises(InputError, match="held out, rows 0-39"):
        fit(loss, START, shuffled(ROWS, 8, key=jax.random.key(1)), held_out=whole({"x": bad, "y": Y}), settings=QUICK)


def test_where_the_loss_is_not_finite_it_goes_back_and_counts():
    """Beyond a cliff there is no loss; the rate is such that it is stepped over."""

    def cliff(parameters: Any, data: Any) -> Any:
        return jnp.where(jnp.sum(parameters["slope"] ** 2) > 4.0, jnp.nan, loss(parameters, data))

    found = fit(
        cliff, START, lambda epoch: [Batch("all", ROWS)], held_out=whole(ROWS),
        settings=Training(rate=0.3, epochs=40, patience=40, average=0.5),
    )  # fmt: skip
    size = float(np.sum(np.asarray(found.parameters["slope"]) ** 2))
    assert found.refused > 2 and 3.0 < size <= 4.0 and np.isfinite(found.scores).all()
    with pytest.raises(ValueError, match="in the 1 batches of epoch 1"):
        fit(lambda p, d: loss(p, d) * jnp.nan, START, lambda e: [Batch("all", ROWS)], held_out=whole(ROWS))


def test_subjects_are_not_torn_apart_and_batches_hold_every_row_in_turn():
    subject = np.repeat(np.arange(10), 4)
    training, held = split_subjects(subject, 0.3, key=jax.random.key(2))
    assert np.array_equal(training, ~held) and len(np.unique(subject[held])) == 3
    assert not set(subject[held]) & set(subject[training])
    batches = shuffled({"row": np.arange(40.0)}, 7, key=jax.random.key(3))
    epochs = [np.concatenate([b.data["row"] for b in batches(e)]) for e in range(12)]
    assert all(len(np.unique(e)) == len(e) == 35 for e in epochs) and set(np.concatenate(epochs)) == set(range(40))
    assert not np.array_equal(epochs[0], epochs[1]) and np.array_equal(
        epochs[1], [b for x in batches(1) for b in x.data["row"]]
    )
    rows = [b.data["row"] for b in whole({"row": np.arange(10.0)}, 4)]
    assert set(np.concatenate(rows)) == set(range(10)) and {len(r) for r in rows} == {4}
