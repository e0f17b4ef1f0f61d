"""Baselines that cannot see the hidden scan, and a table in which they always stand."""

import numpy as np
import pytest

from tumortwin.metrics import (
    BASELINES,
    ForecastCase,
    baseline_forecasts,
    dice,
    dilation,
    exponential_growth,
    score_forecast,
    signed_distance,
    to_volume,
    volume_growth_rate,
)

MM = (1.0, 1.0, 1.0)


def ball(radius, shape=(31, 31, 31), spacing=(1.0, 1.0, 1.0)):
    axes = [(np.arange(n) - n // 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius**2


def test_dilation_is_in_millimetres_whatever_the_voxel():
    mask = np.zeros((21, 21, 9), dtype=bool)
    mask[10, 10, 4] = True
    grown = dilation(mask, 4.0, (1.0, 2.0, 3.0))
    assert grown[6:15, 10, 4].all() and not grown[5, 10, 4]
    assert grown[10, 8:13, 4].all() and not grown[10, 7, 4]
    assert grown[10, 10, 3:6].all() and not grown[10, 10, 2]
    np.testing.assert_array_equal(dilation(mask, 0.0, MM), mask)
    assert dilation(ball(6.0), -2.0, MM).sum() < ball(6.0).sum()


def test_dilation_stays_in_the_domain_but_keeps_what_was_seen():
    mask, domain = ball(3.0), np.zeros((31, 31, 31), dtype=bool)
    domain[:16] = True
    grown = dilation(mask, 5.0, MM, domain)
    assert (grown & ~domain & ~mask).sum() == 0
    assert (mask & ~grown).sum() == 0


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.5, 3.0])
def test_growth_to_a_volume_reaches_it_within_a_shell_and_is_nested(factor):
    mask = ball(7.0)
    grown = to_volume(mask, float(factor * mask.sum()), MM)
    assert grown.sum() == pytest.approx(float(factor * mask.sum()), rel=0.12)
    assert not (grown & ~mask).any() if factor <= 1.0 else not (mask & ~grown).any()
    order = (1, 2, 0)
    np.testing.assert_array_equal(
        to_volume(mask.transpose(order), float(factor * mask.sum()), MM), grown.transpose(order)
    )


def test_growth_rate_uses_two_volumes_or_the_prior():
    assert volume_growth_rate([0.0, 10.0], [100.0, 200.0], 50.0) == pytest.approx(np.log(2) / 10)
    assert volume_growth_rate([10.0], [100.0], 50.0) == pytest.approx(np.log(2) / 50)
    assert volume_growth_rate([0.0, 10.0], [0.0, 200.0], 50.0) == pytest.approx(np.log(2) / 50)
    assert volume_growth_rate([0.0, 5.0, 10.0], [400.0, 100.0, 50.0], 50.0) == pytest.approx(-np.log(2) / 5)


def test_exponential_growth_of_a_ball_is_the_larger_ball():
    first, last = ball(4.0), ball(6.0)
    rate = np.log(last.sum() / first.sum()) / 20.0
    radius = 6.0 * np.exp(rate * 15.0 / 3.0)
    forecast = exponential_growth([first, last], [0.0, 20.0], 35.0, MM, doubling_time=1e9)
    assert dice(forecast, ball(radius)) > 0.95


def test_an_empty_last_mask_stays_empty():
    empty = np.zeros((5, 5, 5), dtype=bool)
    found = baseline_forecasts([empty], [0.0], 30.0, MM, radial_velocity=0.1, doubling_time=60.0)
    assert not any(mask.any() for mask in found.values())


def case(day=180.0, observed_radius=9.0):
    masks, days = [ball(5.0), ball(6.0)], [0.0, 90.0]
    volumes = ball(9.0).sum() * np.exp(0.1 * np.random.default_rng(0).standard_normal(200))
    return ForecastCase(
        channel="flair",
        day=day,
        observed=ball(observed_radius),
        forecast=ball(8.6),
        volumes=volumes,
        baselines=baseline_forecasts(masks, days, day, MM, radial_velocity=0.03, doubling_time=90.0),
    )


def test_the_table_has_the_twin_beside_every_baseline():
    entries = score_forecast([case(), case(day=120.0, observed_radius=7.0)], MM)
    names = [e["name"] for e in entries]
    assert len(names) == len(set(names))
    for day in ("180", "120"):
        for who in ("twin", *BASELINES):
            for score in ("dice", "hd95", "crps", "volume_similarity"):
                assert f"forecast.flair.day{day}.{who}.{score}" in names
    assert all(set(e) == {"name", "value", "unit", "target", "source"} for e in entries)
    values = {e["name"]: e["value"] for e in entries}
    assert values["forecast.flair.day180.twin.covered"] == 1.0
    assert values["forecast.flair.day120.twin.covered"] == 0.0
    assert values["forecast.all.twin.coverage"] == 0.5
    stay = abs(ball(6.0).sum() - ball(9.0).sum())
    assert values["forecast.flair.day180.persistence.crps"] == stay
    assert values["forecast.flair.day180.twin.dice"] > values["forecast.flair.day180.persistence.dice"]


def test_a_missing_baseline_is_refused():
    with pytest.raises(ValueError, match=r"every baseline.*dilation"):
        ForecastCase("t1gd", 1.0, ball(3.0), ball(3.0), np.ones(3), {"persistence": ball(3.0)})


def test_distance_to_centers_and_to_the_edge():
    mask = np.zeros((9, 3, 3), bool)
    mask[3:6] = True
    line = [signed_distance(mask, (2.0, 2.0, 2.0), to_edge=edge)[:, 1, 1].tolist() for edge in (False, True)]
    assert line[0] == [6.0, 4.0, 2.0, -2.0, -4.0, -2.0, 2.0, 4.0, 6.0]
    assert line[1] == pytest.approx([5.0, 3.0, 1.0, -1.0, -3.0, -1.0, 1.0, 3.0, 5.0])
