"""A virtual patient: reproducible, inside its domain, and in possession of the truth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as case

from tumortwin.treatments import Course, Schedule
from tumortwin.twin import VirtualTumor, truth_entries, virtual_patient

DAYS = (0.0, 40.0)
TUMOR = VirtualTumor(rate_length=8.0, contour_length=4.0, adc_length=4.0, core_volume=(6e3, 9e3))


def made(key, tumor=TUMOR):
    anatomy = case.patient()
    schedule = Schedule(Course(jnp.asarray([10.0]), jnp.asarray([2.0])), {"temozolomide": Course.empty()})
    tissue = {name: np.asarray(value) for name, value in anatomy.tissue.items()}
    return virtual_patient(
        "v", case.GRID, anatomy.brain, anatomy.domain, tissue, anatomy.anatomy,
        days=DAYS, schedule=schedule, tumor=tumor, key=key,
    )  # fmt: skip


@pytest.fixture(scope="module")
def patient():
    return made(jax.random.key(3))


def test_the_same_key_is_the_same_patient(patient):
    again, other = made(jax.random.key(3)), made(jax.random.key(4))
    assert case.same(patient, again) and patient.truth == again.truth
    assert not case.same(patient, other) and patient.truth != other.truth


def test_the_truth_holds_parameters_and_the_volume_of_every_visit(patient):
    names = {"diffusivity", "rate", "alpha", "sensitivity", "flair_threshold", "t1gd_threshold"}
    assert set(patient.truth) == names | {f"volume_{c}_{d:g}" for c in ("t1gd", "flair") for d in DAYS}
    assert TUMOR.core_volume[0] <= patient.truth["volume_t1gd_0"] <= 1.5 * TUMOR.core_volume[1]
    low, high = TUMOR.flair_threshold
    assert low <= patient.truth["flair_threshold"] <= high
    assert all(patient.truth[f"volume_flair_{d:g}"] > patient.truth[f"volume_t1gd_{d:g}"] for d in DAYS)


def test_outlines_lie_inside_the_brain_and_follow_the_truth(patient):
    for scan in patient.scans:
        for channel, mask in scan.masks.items():
            assert mask.any() and not (mask & ~patient.domain).any()
            assert scan.volume(channel, patient.grid) == pytest.approx(
                patient.truth[f"volume_{channel}_{scan.day:g}"], rel=0.35
            )
        assert np.array_equal(scan.adc_valid, scan.masks["flair"]) and (scan.adc[scan.adc_valid] > 0).all()


def test_a_truth_whose_solve_fails_is_an_error():
    with pytest.raises(ValueError, match="a diffusivity below 0.6"):
        made(jax.random.key(3), VirtualTumor(diffusivity=(2.0, 0.0)))


def test_the_gray_matter_of_the_truth_is_the_one_that_was_asked_for(patient):
    other = made(jax.random.key(3), dataclasses.replace(TUMOR, gray_ratio=0.9))
    assert other.truth and other.truth["volume_flair_40"] != patient.truth["volume_flair_40"]


def test_a_tumor_that_does_not_grow_is_an_error():
    with pytest.raises(ValueError, match="longest_growth"):
        made(jax.random.key(3), VirtualTumor(rate=(1e-4, 0.0), longest_growth=60.0))


def test_a_truth_is_covered_or_it_is_not(patient):
    rate = patient.truth["rate"]
    found = {e["name"]: e["value"] for e in truth_entries(patient, {"rate": (0.9 * rate, rate, 1.1 * rate)})}
    assert found["truth.rate.covered"] == 1.0 and found["truth.rate.truth"] == rate
    missed = truth_entries(patient, {"rate": (1.1 * rate, 1.2 * rate, 1.3 * rate), "nothing": (0.0, 0.0, 0.0)})
    assert {e["name"]: e["value"] for e in missed}["truth.rate.covered"] == 0.0 and len(missed) == 5
    assert truth_entries(case.patient(), {"rate": (0.0, 1.0, 2.0)}) == []
