"""The ablation is fair: nobody sees the future, no subject stands on two sides, intervals and ranks are right."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hybrid_ablation.blank import Blank
from experiments.hybrid_ablation.immune import immune
from experiments.hybrid_ablation.learned import all_kinds, forecaster, predicted
from experiments.hybrid_ablation.lesions import LAW, lesions
from experiments.hybrid_ablation.rows import HYBRID, LEARNED, MECHANISM, Rows, rotation
from experiments.hybrid_ablation.scores import LEVELS, cases_of, conformal_interval, ranking, scored
from experiments.hybrid_ablation.tables import told
from experiments.hybrid_ablation.wells import shared_hours
from tumortwin.inference import Training
from tumortwin.io import Covariate, Quantity, TableSchema, read_table
from tumortwin.solvers import simulate_compartment

QUICK = Training(rate=0.02, epochs=3, patience=3)


def lesion_table(folder, seed=0, poison=False):
    rng = np.random.default_rng(seed)
    lines = ["p,day,mm,arm"]
    for s in range(30):
        n = int(rng.integers(3, 9))
        sizes = np.round(30 * np.exp(np.cumsum(0.1 * rng.standard_normal(n))))
        if poison and n >= 6:
            sizes[-2:] = np.round(sizes[-2:] * 4 + 7)
        lines += [f"s{s},{42 * k},{v:g},a" for k, v in enumerate(sizes)]
    file = folder / f"lesions_{poison}.csv"
    file.write_text("\n".join(lines) + "\n")
    schema = TableSchema(
        subject=("p",), time="day", time_unit="day", quantities={"diameter": Quantity("mm", "mm")},
        covariates={"arm": Covariate("arm")},
    )  # fmt: skip
    return read_table(file, schema)


def test_what_is_known_of_a_lesion_does_not_change_with_its_future(tmp_path):
    honest, poisoned = (lesions(lesion_table(tmp_path, poison=p)) for p in (False, True))
    asked = honest.asked
    assert asked.sum() > 5 and np.array_equal(asked, poisoned.asked)
    for name in ("start", "days", "own", "features", "level", "valid"):
        assert np.array_equal(getattr(honest.rows, name)[asked], getattr(poisoned.rows, name)[asked]), name
    assert not np.array_equal(honest.raw[asked], poisoned.raw[asked])
    # And not by way of training: the last two readings of a tested subject are in no training row of its round.
    for train, calibrating, test in honest.parts(3):
        assert not set(honest.subject[test]) & (set(honest.subject[train]) | set(honest.subject[calibrating]))
        assert not set(honest.subject[train]) & set(honest.subject[calibrating])
        assert not (test & ~asked).any() and not (calibrating & ~asked).any()


def test_every_asked_subject_is_tested_once():
    subject, asked = np.repeat([f"s{i}" for i in range(10)], 3), np.tile([False, False, True], 10)
    tested = np.sum([test for _, _, test in rotation(subject, asked, 4, 1)], axis=0)
    assert np.array_equal(tested, asked.astype(int))


def test_conformal_intervals_hold_what_they_promise_and_narrower_ones_do_not():
    rng = np.random.default_rng(1)
    draws = rng.standard_t(3, (4000, 60))
    for level in (0.5, 0.9, 0.95):
        ends = np.array([conformal_interval(d[:-1], level) for d in draws])
        held = np.mean((ends[:, 0] <= draws[:, -1]) & (draws[:, -1] <= ends[:, 1]))
        assert level - 0.015 < held < level + 0.05
    ends = np.array([conformal_interval(d[:9], 0.95) for d in draws])  # too few: the whole range, and it holds 8 in 10
    assert np.mean((ends[:, 0] <= draws[:, -1]) & (draws[:, -1] <= ends[:, 1])) == pytest.approx(0.8, abs=0.02)


def test_ranks_are_certain_where_one_is_better_and_are_not_where_it_is_noise():
    rng = np.random.default_rng(2)
    subject = np.repeat(np.arange(60), 2)
    base = rng.gamma(2.0, 1.0, 120)
    found = ranking({"good": base - 0.5, "bad": base, "twin": base + 1e-3 * rng.standard_normal(120)}, subject, rng)
    assert found.names[0] == "good" and found.rank["good"] == (1.0, 1.0) and found.best["good"] == 1.0
    assert found.rank["bad"] == found.rank["twin"] == (2.0, 3.0)
    mean, low, high = found.difference["good", "bad"]
    assert mean == pytest.approx(-0.5) and low == pytest.approx(-0.5) and high == pytest.approx(-0.5)


@pytest.mark.slow
def test_a_blank_model_keeps_its_size_and_knows_what_happened():
    found = simulate_compartment(
        Blank(jnp.asarray(3.0)), jnp.asarray([1.0, 4.0]), None, (jnp.asarray([2.0]), jnp.asarray([5.0]))
    )
    np.testing.assert_allclose(found.burden, [3.0, 3.0])
    np.testing.assert_allclose(found.states.given, [0.0, 5.0])
    np.testing.assert_allclose(found.states.days, [1.0, 4.0])


@pytest.mark.slow
def test_the_three_begin_where_they_should_and_are_scored_alike(tmp_path):
    task = lesions(lesion_table(tmp_path))
    parameters, curves = {}, {}
    for kind in LEARNED:
        made = forecaster(LAW, kind, jax.random.key(0))
        parameters[kind] = made.first()
        curves[kind] = predicted(made, made.first(), task.rows)
    np.testing.assert_allclose(curves[HYBRID], curves[MECHANISM], rtol=1e-7)
    still = np.log(task.rows.start)[:, None] * np.ones((1, 2))
    np.testing.assert_allclose(curves["network"], still, rtol=1e-12)  # a silent network is persistence
    found = told(task, 0, QUICK, 1, key=jax.random.key(1))
    assert set(found.scores) == {*LEARNED, "persistence"} and found.solver_difference < 1e-6
    sizes = {s.crps.size for s in found.scores.values()} | {s.inside.shape[1] for s in found.scores.values()}
    assert sizes == {found.cases.row.size} and found.scores[HYBRID].inside.shape[0] == LEVELS.size


def test_the_score_of_a_forecast_that_is_right_is_small(tmp_path):
    task = lesions(lesion_table(tmp_path))
    train, calibrating, test = next(task.parts(0))
    del train
    cases = cases_of(task, test)
    perfect = scored(task, np.asarray(task.rows.seen), calibrating, cases)
    assert perfect.error.max() < 1e-12 and perfect.crps.max() < 1e-12
    off = scored(task, np.asarray(task.rows.seen) + np.where(test, 0.5, 0.0)[:, None], calibrating, cases)
    assert off.crps.min() > 0.1 and not off.inside.any()


@pytest.mark.slow
def test_car_t_curves_start_at_their_own_reading(tmp_path):
    lines = ["line,wells,h,index,dex,cells"]
    for s in range(8):
        lines += [
            f"L{s % 2},w{s},{t},{1 + 0.01 * t * (s + 1):g},{0.0 if s < 4 else 1e-7},{0.1 * s}" for t in range(0, 120, 4)
        ]
    file = tmp_path / "index.csv"
    file.write_text("\n".join(lines) + "\n")
    schema = TableSchema(
        subject=("line", "wells"), time="h", time_unit="hour", quantities={"cell_index": Quantity("index", "1")},
        covariates={
            "line": Covariate("line"),
            "dexamethasone": Covariate("dex", "ug/mL"),
            "car_t_cells": Covariate("cells", "1"),
        },
    )  # fmt: skip
    task = immune(read_table(file, schema))
    np.testing.assert_allclose(task.rows.start, 1 + 0.24 * np.arange(1, 9))
    np.testing.assert_allclose(task.rows.days[0, :2], [0.25, 0.5])
    np.testing.assert_allclose(task.back(np.asarray(task.rows.seen)), task.raw, rtol=1e-12)
    np.testing.assert_allclose(np.unique(task.rows.level), [0.0, 0.8])
    found = all_kinds(task.law, task.rows, task.subject, QUICK, key=jax.random.key(0), name="x")
    assert all(np.isfinite(predicted(made, p, task.rows)).all() for made, p in found.values())


def test_rows_are_filled_with_what_does_not_count():
    shapes = {"days": (5, 2), "seen": (5, 2), "valid": (5, 2), "start": (5,), "level": (5,)}
    rows = Rows(*(np.ones(shapes.get(field.name, (5, 1))) for field in dataclasses.fields(Rows)))
    filled = rows.filled(64)
    assert len(filled.start) == 64 and filled.valid.sum() == rows.valid.sum()


def test_an_hour_that_one_schedule_alone_was_read_at_has_the_errors_of_the_hour_before():
    valid = np.ones((4, 5), bool)
    valid[:2, 4] = False  # the last hour: the second schedule alone
    schedules = np.asarray(["a", "a", "b", "b"])
    np.testing.assert_array_equal(shared_hours(schedules, valid), [0, 1, 2, 3, 3])
    valid[:, 4] = True
    np.testing.assert_array_equal(shared_hours(schedules, valid), [0, 1, 2, 3, 4])
