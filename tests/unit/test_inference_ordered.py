"""A distribution's leaves stand in one order in every process, so that a program that takes one can be cached."""

import os
import subprocess
import sys

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from tumortwin.inference._ordered import Ordered

CASES = {
    "plain": dist.LogNormal(0.3, 0.7),
    "truncated": dist.TruncatedNormal(0.2, 0.5, low=0.1, high=2.0),
    "expanded": dist.Normal(1.0, 2.0).expand([3]),
    "masked": dist.Normal(1.0, 2.0).mask(True),
}
PROGRAM = """
import jax, sys
import numpyro.distributions as dist
from tumortwin.inference import Prior
prior = Prior({"a": dist.Gamma(2.0, 3.0), "b": dist.Uniform(1.0, 2.0)})
print(jax.jit(lambda prior, z: (prior.log_density(z), prior.constrain(z))).lower(prior, jax.numpy.ones(2)).as_text())
"""


@pytest.mark.parametrize("name", CASES)
def test_the_ordered_form_is_the_same_distribution(name):
    entry = CASES[name]
    ordered = Ordered.of(entry)
    back = jax.tree.unflatten(jax.tree.structure(ordered), jax.tree.leaves(ordered)).distribution
    assert type(back) is type(entry) and back.batch_shape == entry.batch_shape
    x = 0.7 * np.ones(entry.batch_shape)
    np.testing.assert_array_equal(back.log_prob(x), entry.log_prob(x))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.flatten_with_path(ordered)[0]]
    assert paths == sorted(paths) and paths


@pytest.mark.slow
def test_the_program_of_a_prior_does_not_depend_on_the_process():
    programs = set()
    for seed in ("1", "2", "5"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        programs.add(done.stdout)
    assert len(programs) == 1 and "stablehlo" in programs.pop()
