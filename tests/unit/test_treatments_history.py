"""Histories of exposure: one row a subject, one more level than switches."""

import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.treatments import StepHistory


def test_courses_are_on_between_their_days():
    history = StepHistory.courses(
        jnp.asarray([[0.0, 50.0], [10.0, 30.0]]), jnp.asarray([[20.0, 90.0], [12.0, jnp.inf]])
    )
    assert history.size == 4
    np.testing.assert_array_equal(history.edges, [[0.0, 20.0, 50.0, 90.0], [10.0, 12.0, 30.0, np.inf]])
    np.testing.assert_array_equal(history.levels, [[0.0, 1.0, 0.0, 1.0, 0.0]] * 2)


def test_a_constant_has_no_switch():
    assert StepHistory.constant(2.0).levels.tolist() == [2.0]
    table = StepHistory.constant(jnp.asarray([1.0, 3.0]))
    assert table.size == 0 and table.edges.shape == (2, 0)
    np.testing.assert_array_equal(table.levels, [[1.0], [3.0]])


def test_levels_times_a_sensitivity_of_each_subject():
    history = StepHistory.courses(jnp.zeros((2, 1)), jnp.ones((2, 1)))
    np.testing.assert_array_equal(history.scaled(jnp.asarray([2.0, 5.0])).levels, [[0.0, 2.0, 0.0], [0.0, 5.0, 0.0]])
    np.testing.assert_array_equal(history.scaled(3.0).levels, [[0.0, 3.0, 0.0]] * 2)


def test_a_level_is_missing():
    with pytest.raises(ValueError, match="one more level"):
        StepHistory(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
