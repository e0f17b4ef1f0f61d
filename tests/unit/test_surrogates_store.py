"""A surrogate on disk is the surrogate; a damaged one is refused; training that was killed goes on where it was."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest
import surrogate_case as case

from tumortwin import cli_train_reduced
from tumortwin._errors import InputError
from tumortwin.cli_train_reduced import TrainingCase, fit, held_out_cases, modes_of, simulate_training, stored_samples
from tumortwin.config import compose
from tumortwin.io import read_samples, read_surrogate, write_samples, write_surrogate
from tumortwin.runs import open_run
from tumortwin.surrogates import HeldOut, PodSurrogate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "surrogate"
    write_surrogate(folder, case.calibrated(), {"seed": 1, "note": "tiny"})
    return folder


def test_what_is_read_is_what_was_written_to_the_bit(stored):
    read, facts = read_surrogate(stored)
    assert facts == {"seed": 1, "note": "tiny"}
    assert eqx.tree_equal(read, case.calibrated())
    assert jax.tree.structure(read) == jax.tree.structure(case.calibrated())


def test_a_surrogate_in_single_precision_is_read_as_it_was_written(tmp_path):
    """Of a twin's densities: single, but for the sums of the modes, which are double."""
    surrogate = case.calibrated()
    single = lambda tree: jax.tree.map(lambda x: x.astype(np.float32) if eqx.is_inexact_array(x) else x, tree)  # noqa: E731
    where = lambda s: (s.model.tissue.fields, s.model.initial, s.modes, s.near_modes, s.operators)  # noqa: E731
    written = eqx.tree_at(where, surrogate, single(where(surrogate)))
    assert written.mode_sums.dtype == np.float64
    read, _ = read_surrogate(write_surrogate(tmp_path / "surrogate", written, {}))
    assert isinstance(read, PodSurrogate)
    assert read.modes.dtype == np.float32 and np.array_equal(read.modes, written.modes)
    assert np.array_equal(read.mode_sums, written.mode_sums)


@pytest.mark.parametrize("damage", ["a bit", "cut", "gone", "spec", "format"])
def test_a_damaged_surrogate_is_refused(stored, tmp_path, damage):
    for name in ("surrogate.eqx", "spec.json"):
        (tmp_path / name).write_bytes((stored / name).read_bytes())
    arrays, spec = tmp_path / "surrogate.eqx", tmp_path / "spec.json"
    raw = bytearray(arrays.read_bytes())
    if damage == "a bit":
        raw[len(raw) // 2] ^= 1
        arrays.write_bytes(raw)
    elif damage == "cut":
        arrays.write_bytes(raw[:-7])
    elif damage == "gone":
        arrays.unlink()
    elif damage == "spec":
        spec.write_text("{}")
    else:
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"format": 99}))
    with pytest.raises(InputError) as error:
        read_surrogate(tmp_path)
    assert {"spec": "specification", "format": "format 99"}.get(damage, "SHA-256") in str(error.value)


def test_a_specification_that_does_not_fit_is_refused(stored, tmp_path):
    (tmp_path / "surrogate.eqx").write_bytes((stored / "surrogate.eqx").read_bytes())
    spec = json.loads((stored / "spec.json").read_text())
    spec["structure"]["modes"] += 1
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match="fits its arrays"):
        read_surrogate(tmp_path)


def test_samples_come_back_as_they_were(tmp_path):
    arrays = {"a.b": np.arange(6.0).reshape(3, 2), "n": np.asarray([1, 2, 3]), "ok": np.asarray([True, False, True])}
    write_samples(tmp_path / "x.zarr", arrays, {"seed": 3, "days": [1.0, 2.0]})
    read, attrs = read_samples(tmp_path / "x.zarr")
    assert attrs == {"seed": 3, "days": [1.0, 2.0]}
    for name, value in arrays.items():
        assert np.array_equal(read[name], value) and read[name].dtype == value.dtype
    with pytest.raises(ValueError, match="as many samples"):
        write_samples(tmp_path / "y.zarr", {"a": np.zeros(2), "b": np.zeros(3)}, {})
    with pytest.raises(InputError):
        read_samples(tmp_path / "z.zarr")


def test_training_goes_on_where_it_was_killed_and_says_what_it_is(tmp_path, monkeypatch):
    training = TrainingCase(
        case.model(),
        case.prior(),
        case.SCHEDULE,
        case.SOLVER,
        case.SNAPSHOT_DAYS,
        case.DAYS,
        case.LEVELS,
        case.SETTINGS,
    )
    given = ["surrogate.training=32", "surrogate.chunk=12", "seed=1"]
    with open_run(compose([f"paths.runs={tmp_path / 'whole'}", *given]).config) as run:
        simulate_training(run.config, run, training)
        whole = [read_samples(path)[0] for path in sorted(run.path("training").glob("*.zarr"))]
    assert [len(a["density"]) for a in whole] == [12, 12, 8]
    config = compose([f"paths.runs={tmp_path / 'killed'}", *given]).config
    with open_run(config) as run:
        written = []

        def dies(path, *rest):
            written.append(path)
            if len(written) == 2:
                raise KeyboardInterrupt
            write_samples(path, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(cli_train_reduced, "write_samples", dies)
            with pytest.raises(KeyboardInterrupt):
                simulate_training(config, run, training)
        kept = (written[0] / "zarr.json").stat().st_mtime_ns
        assert not written[1].exists()
        simulate_training(config, run, training)
        chunks = sorted(run.path("training").glob("*.zarr"))
        assert (chunks[0] / "zarr.json").stat().st_mtime_ns == kept
        for before, path in zip(whole, chunks, strict=True):
            after, attrs = read_samples(path)
            assert all(np.array_equal(before[name], after[name]) for name in before)
            assert attrs["seed"] == 1 and attrs["max_step_day"] == case.SOLVER.max_step
            assert (after["error_estimate"] > 0).all() and (after["error_estimate"] < 0.1).all()
        density = np.concatenate([samples.density for samples in stored_samples(run, training.prior.paths)])
        assert np.array_equal(density, case.training().density)  # however it is cut into chunks
        basis = modes_of(config, run, training)
        surrogate = fit(config, run, training, basis)
        assert surrogate.operators.size == case.SETTINGS.modes and basis.lost[-1] < 1e-4
        found = held_out_cases(config, run, training, surrogate, "calibration", 20)
        again = held_out_cases(config, run, training, surrogate, "calibration", 20)
        assert isinstance(found, HeldOut) and len(found.inside) == 20
        jax.tree.map(np.testing.assert_array_equal, found.arrays(), again.arrays())
