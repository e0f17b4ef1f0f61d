"""Gradients with respect to parameters, doses and the times of doses, on both paths, against finite differences."""

import jax
import pytest

from experiments.verification import gradients

LOSSES = {path: jax.jit(loss) for path, loss in gradients.losses(n=8).items()}
GRADIENTS = {path: jax.jit(jax.grad(loss)) for path, loss in LOSSES.items()}


@pytest.mark.parametrize("path", ["fast", "moving"])
def test_adjoint_against_central_differences(path):
    errors = gradients.gradient_errors(LOSSES[path], GRADIENTS[path], every=path == "moving")
    assert set(errors) == set(gradients.inputs())
    assert max(errors.values()) < 1e-7, errors


def test_both_paths_agree_on_the_gradient_with_respect_to_time():
    at = gradients.inputs()
    fast, moving = (GRADIENTS[path](at)["fraction time"] for path in ("fast", "moving"))
    assert float(abs(fast - moving).max()) < 0.03 * float(abs(moving).max())
    assert float(abs(moving).min()) > 0.0  # lumping a fraction into its step would give zero
