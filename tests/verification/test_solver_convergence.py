"""The error falls as the theory says: second order in space and in time, and the front runs at its exact speed."""

import numpy as np
import pytest

from experiments.verification import convergence
from experiments.verification.cases import orders

ISOTROPIC, FLAT = (3.0, 3.0, 3.0), (2.0, 2.0, 6.0)


@pytest.mark.parametrize("spacing", [ISOTROPIC, FLAT])
def test_spatial_order_of_a_decaying_cosine(spacing):
    errors = convergence.cosine_errors((6, 12, 24), spacing, day=30.0, step=0.6)
    assert all(1.9 <= order <= 2.1 for order in orders(errors)), (errors, orders(errors))


@pytest.mark.parametrize("spacing", [ISOTROPIC, FLAT])
def test_spatial_order_of_a_manufactured_state_with_smooth_diffusivity_and_growth(spacing):
    errors = convergence.manufactured_errors((6, 12, 24), spacing, day=20.0, step=0.4)
    assert all(1.9 <= order <= 2.1 for order in orders(errors)), (errors, orders(errors))


def test_error_on_an_irregular_mask_falls():
    errors = convergence.masked_errors((6, 12, 24), (5.0, 5.0, 5.0))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("treated, steps", [(False, (8.0, 4.0)), (True, (8.0, 4.0, 2.0))])
def test_temporal_order_and_the_error_estimate(treated, steps):
    errors, estimates = convergence.temporal(steps, treated=treated, same_stages=True, n=10, spacing=2.0)
    assert all(order >= 1.9 for order in orders(errors)), (errors, orders(errors))
    ratios = np.array(estimates) / np.array(errors)
    assert np.all((ratios > 0.5) & (ratios < 2.0)), ratios


@pytest.mark.parametrize("axis", [0, 2])
def test_front_speed_along_every_axis(axis):
    assert abs(convergence.front_speed_error(axis)) < 0.01


def test_front_speed_needs_a_fine_grid():
    """The check can fail: at dx = 2 sqrt(D/rho) the front is visibly too fast."""
    assert abs(convergence.front_speed_error(0, 0.5)) > 0.01


def test_the_two_paths_agree():
    assert convergence.path_differences((4.0,))[0] < 3e-4
