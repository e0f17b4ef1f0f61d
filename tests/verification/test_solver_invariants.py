"""Mass, survival, symmetry, and an independent program."""

import numpy as np
import pytest

from experiments.verification import invariants
from experiments.verification.cases import ball, brain


def test_mass_is_conserved_without_growth():
    for name, drift in invariants.mass_drift(n=12).items():
        assert drift < 1e-12, name


@pytest.mark.parametrize("n_fractions, dose, alpha_beta", [(30, 2.0, 10.0), (7, 5.0, 3.0)])
def test_survival_after_n_fractions_whatever_the_step(n_fractions, dose, alpha_beta):
    for step in (7.3, 1.9):
        error = invariants.fraction_error(n_fractions, dose, alpha_beta=alpha_beta, step=step)
        assert error < 1e-12


def test_voxel_order_does_not_change_the_answer():
    cases = [((2, 0, 1), (True, False, True)), ((0, 1, 2), (True, True, True)), ((1, 0, 2), (False, False, False))]
    assert invariants.orientation_difference(cases, n=10) < 1e-12


def test_reoriented_voxels_keep_their_place_in_the_scanner():
    """The helper that reorients is right itself: the same tissue at the same millimetres."""
    tissue = brain((8, 10, 6), (2.0, 1.5, 3.0))
    other, _, _ = invariants.reoriented(tissue, ball(tissue), (2, 0, 1), (True, False, True))
    index = np.argwhere(np.asarray(tissue.domain.mask))
    there = np.rint(other.grid.to_index(tissue.grid.to_world(index))).astype(int)
    here = np.asarray(tissue.fields["white_matter"])[tuple(index.T)]
    np.testing.assert_array_equal(np.asarray(other.fields["white_matter"])[tuple(there.T)], here)


def test_agrees_with_an_independent_explicit_euler_program():
    assert invariants.euler_difference(n=12) < 2e-4
