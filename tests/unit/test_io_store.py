"""posterior.zarr and forecast.zarr: the same numbers come back, nothing is ever half there."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tumortwin._errors import InputError
from tumortwin.io import read_forecast, read_posterior, write_forecast, write_posterior

ATTRS = {
    "statement": "one scan identifies D/rho, not D and rho",
    "diagnostics": {"k_hat": 0.41, "ess": np.float64(812.0)},
    "units": {"mechanisms.proliferation.rate": "1/day"},
    "version": "1",
    "count": 3,
    "affine": np.eye(4).tolist(),
    "nothing": None,
}


Arrays = dict[str, np.ndarray]


def posterior(seed: int = 0) -> tuple[Arrays, Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    draws = {
        "mechanisms.diffusion.white_matter": rng.normal(size=(2, 30)),
        "observation.t1gd.threshold": rng.normal(size=(2, 30)),
        "mechanisms.proliferation.field": rng.normal(size=(2, 30, 4)),
    }
    prior = {"mechanisms.diffusion.white_matter": rng.normal(size=(1, 50))}
    return draws, prior, {"log_density": rng.normal(size=(2, 30)), "divergent": np.zeros((2, 30), bool)}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    for name, value in a.items():
        np.testing.assert_array_equal(b[name], value)
        assert b[name].dtype == value.dtype


def test_a_posterior_comes_back_as_it_was(tmp_path: Path) -> None:
    written = posterior()
    path = write_posterior(tmp_path / "posterior.zarr", *written, ATTRS)
    *groups, attrs = read_posterior(path)
    for given, got in zip(written, groups, strict=True):
        same(given, got)
    assert attrs == ATTRS


def test_names_come_back_in_the_order_of_the_alphabet_not_of_the_disk(tmp_path: Path) -> None:
    """A run that read its posterior back listed its results in another order than the next one."""
    draws = {f"parameter_{letter}": np.ones((1, 2)) for letter in "hgcabkfedji"}
    found, _, _, _ = read_posterior(write_posterior(tmp_path / "posterior.zarr", draws, {}, {}, {}))
    assert list(found) == sorted(draws)


def test_the_layout_is_the_contract_s(tmp_path: Path) -> None:
    path = write_posterior(tmp_path / "posterior.zarr", *posterior(), ATTRS)
    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        assert set(tree.children) == {"posterior", "prior", "sample_stats"}
        assert tree["posterior"]["mechanisms.diffusion.white_matter"].dims == ("chain", "draw")
        assert tree.attrs["statement"] == ATTRS["statement"]
    assert (path / "zarr.json").is_file()


def test_rewriting_replaces_and_leaves_no_temporary_folder(tmp_path: Path) -> None:
    path = tmp_path / "posterior.zarr"
    write_posterior(path, *posterior(0), ATTRS)
    write_posterior(path, {"b": np.ones((1, 3))}, {}, {}, {"statement": "second"})
    draws, prior, stats, attrs = read_posterior(path)
    assert list(draws) == ["b"] and prior == {} and stats == {} and attrs == {"statement": "second"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_previous_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_posterior(tmp_path / "posterior.zarr", *posterior(), ATTRS)

    def full_disk(self, store, **_) -> None:
        Path(store).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_zarr", full_disk)
    with pytest.raises(InputError, match="room on the disk"):
        write_posterior(path, *posterior(1), ATTRS)
    same(posterior()[0], read_posterior(path)[0])
    assert list(tmp_path.iterdir()) == [path]


def test_a_forecast_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    volumes = {"volume_t1gd": rng.uniform(size=(6, 3)), "volume_t1gd_predictive": rng.uniform(size=(6, 3))}
    maps = {name: rng.uniform(size=(3, 4, 5, 6)).astype(np.float32) for name in ("map_mean", "map_sd", "map_p_tumor")}
    path = write_forecast(tmp_path / "forecast.zarr", [0, 90, 180.5], volumes, maps, ATTRS)
    days, got_volumes, got_maps, attrs = read_forecast(path)
    np.testing.assert_array_equal(days, [0.0, 90.0, 180.5])
    same(volumes, got_volumes)
    same(maps, got_maps)
    assert attrs == ATTRS
    with xr.open_zarr(path, consolidated=False, chunks=None) as dataset:
        assert dataset["map_mean"].dims == ("day", "x", "y", "z")
        assert dataset["volume_t1gd"].dims == ("draw", "day")


def test_wrong_shapes_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chain, draw"):
        write_posterior(tmp_path / "p.zarr", {"a": np.ones(3)}, {}, {}, {})
    with pytest.raises(ValueError, match="volume_"):
        write_forecast(tmp_path / "f.zarr", [0.0], {"size": np.ones((2, 1))}, {}, {})
    with pytest.raises(TypeError, match="attrs"):
        write_posterior(tmp_path / "p.zarr", {}, {}, {}, {"bad": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [read_posterior, read_forecast])
def test_missing_and_broken_stores_are_refused(tmp_path: Path, read) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "none.zarr")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="complete Zarr store"):
        read(tmp_path / "broken.zarr")
