"""The picture of schedules: what is given, what follows, what it costs."""

import dataclasses

import numpy as np
import pytest

from tumortwin.report import ShownFront, ShownSchedule, schedule_picture

DAYS = np.linspace(0.0, 60.0, 13)


def shown(label: str, level: float, doses: float) -> ShownSchedule:
    rng = np.random.default_rng(1)
    burden = level * np.exp(0.01 * DAYS[None] * rng.normal(1.0, 0.3, (40, 1)))
    return ShownSchedule(label, {"drug": (np.asarray([0.0, 14.0]), np.asarray([doses, 0.0]))}, DAYS, burden)


def pixels(png: bytes) -> np.ndarray:
    import io

    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3]


def has(image: np.ndarray, color: str) -> bool:
    wanted = np.asarray([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return bool((np.abs(image - wanted).max(axis=-1) < 0.02).any())


def test_both_schedules_and_the_front_are_drawn_and_said() -> None:
    front = ShownFront(
        np.asarray([3.0, 2.0, 1.5]), np.asarray([20.0, 40.0, 60.0]), "tail of the mass", "total dose, Gy"
    )
    pair = (shown("plan", 1.0, 2.0), shown("standard of care", 2.0, 1.0))
    alone = schedule_picture(pair, burden_words="tumor mass", unit="mm^3", dose_units={"drug": "mg"})
    both = schedule_picture(pair, burden_words="tumor mass", unit="mm^3", front=front)
    middle = [float(np.median(s.burden[:, -1])) for s in pair]
    assert f"plan {middle[0]:.2f}, standard of care {middle[1]:.2f} mm" in alone.caption and "tumor mass" in alone.alt
    assert has(pixels(alone.png), "#D55E00") and has(pixels(alone.png), "#6b7280")
    assert pixels(both.png).shape == pixels(alone.png).shape and both.png != alone.png
    assert "Right: the front" in both.caption
    assert "A front of 3 plans: tail of the mass against total dose, Gy" in both.alt
    beside = dataclasses.replace(front, standard=(2.5, 60.0))
    bare = schedule_picture(pair[:1], front=front)
    marked = schedule_picture(pair[:1], front=beside)
    assert marked.png != bare.png
    only = schedule_picture(pair[:1])
    assert only.png != alone.png


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one schedule or more"):
        schedule_picture(())
    with pytest.raises(ValueError, match=r"burden \[draw time\] on days"):
        ShownSchedule("plan", {}, DAYS, np.ones((4, 3)))
