"""A classifier that tells two samples apart, against the best that any could."""

import numpy as np
import pytest
from scipy import stats

from tumortwin.metrics import classifier_two_sample

SIZE = 800


def test_equal_samples_cannot_be_told_apart_and_moved_ones_as_well_as_theory_allows():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, SIZE, 2))
    assert classifier_two_sample(one, other) == pytest.approx(0.5, abs=0.05)
    moved = other + [1.5, 0.0]
    assert classifier_two_sample(one, moved) == pytest.approx(stats.norm.cdf(0.75), abs=0.04)
    assert classifier_two_sample(one, other + 20.0) > 0.99


def test_samples_of_equal_means_but_another_shape_are_told_apart_and_sizes_do_not_matter():
    random = np.random.default_rng(1)
    one = random.normal(size=(SIZE, 2))
    bent = np.stack([one[:, 0], one[:, 1] * np.sign(one[:, 0])], axis=1)  # the same distribution
    ring = np.stack([np.cos(4 * one[:, 0]), np.sin(4 * one[:, 0])], axis=1)
    assert classifier_two_sample(random.normal(size=(3 * SIZE, 2)), bent) < 0.55
    assert classifier_two_sample(random.normal(size=(SIZE, 2)), ring) > 0.75


@pytest.mark.parametrize("second", [np.zeros((50, 3)), np.full((50, 2), np.nan), np.zeros((5, 2))])
def test_samples_that_cannot_be_compared_are_refused(second):
    with pytest.raises(ValueError, match="two finite samples"):
        classifier_two_sample(np.zeros((50, 2)), second)
