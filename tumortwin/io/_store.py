"""posterior.zarr and forecast.zarr: dictionaries of arrays in, the same dictionaries out (Zarr 3, xarray)."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumortwin._errors import InputError
from tumortwin._files import atomic_path

PathLike = str | os.PathLike[str]
CHAINS = ("chain", "draw")
GROUPS = ("posterior", "prior", "sample_stats")
JSON_ATTRS = "json_attrs"
ZARR_FORMAT = 3


def write_posterior(
    path: PathLike,
    draws: Mapping[str, np.ndarray],
    prior_draws: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
) -> Path:
    """Write a posterior as an xarray DataTree with the groups `posterior`, `prior` and `sample_stats`.

    Each array is [chain, draw, ...]; variables are named by parameter path. `attrs` (statement, diagnostics, units,
    model, version, ...) may hold text, numbers, lists and mappings: the latter two are stored as JSON. Written to a
    temporary folder and renamed.
    """
    import xarray as xr

    groups = dict(zip(GROUPS, (draws, prior_draws, sample_stats), strict=True))
    datasets = {f"/{name}": xr.Dataset(_chained(name, group)) for name, group in groups.items()}
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=encode(attrs)), **datasets})
    target = Path(path)
    with atomic_path(target) as temporary:
        tree.to_zarr(temporary, mode="w", consolidated=False, zarr_format=ZARR_FORMAT)
    return target


def read_posterior(
    path: PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """`(draws, prior_draws, sample_stats, attrs)` as they were given to `write_posterior`.

    **Raises:** `InputError` for a missing or broken store.
    """
    import xarray as xr

    folder = existing(path, "posterior.zarr")
    try:
        with xr.open_datatree(folder, engine="zarr", consolidated=False) as tree:
            groups = [plain_arrays(tree[name].to_dataset()) for name in GROUPS]
            attrs = decode(tree.attrs)
    except (OSError, KeyError, ValueError) as error:
        raise broken(folder, error) from None
    return groups[0], groups[1], groups[2], attrs


def write_forecast(
    path: PathLike,
    days: Sequence[float | int] | np.ndarray,
    volumes: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
) -> Path:
    """Write a forecast as an xarray Dataset with dimensions draw, day, x, y, z.

    `volumes`: `volume_<channel>` and `volume_<channel>_predictive` [draw, day] in mm^3; `maps`: `map_mean`, `map_sd`,
    `map_p_tumor` [day, x, y, z], stored as float32, one chunk a day. `attrs` as in `write_posterior`; `affine` is the
    patient's, 4 x 4.
    """
    import xarray as xr

    data: dict[str, Any] = {}
    for name, values in volumes.items():
        _require_prefix(name, "volume_")
        data[name] = (("draw", "day"), np.asarray(values), {"unit": "mm^3"})
    for name, values in maps.items():
        _require_prefix(name, "map_")
        data[name] = (("day", "x", "y", "z"), np.asarray(values, dtype=np.float32), {"unit": "1"})
    dataset = xr.Dataset(data, coords={"day": np.asarray(days, dtype=float)}, attrs=encode(attrs))
    chunks = {name: {"chunks": (1, *dataset[name].shape[1:])} for name in maps}
    target = Path(path)
    with atomic_path(target) as temporary:
        dataset.to_zarr(temporary, mode="w", consolidated=False, zarr_format=ZARR_FORMAT, encoding=chunks)
    return target


def read_forecast(
    path: PathLike,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """`(days, volumes, maps, attrs)` as they were given to `write_forecast`.

    **Raises:** `InputError` for a missing or broken store.
    """
    import xarray as xr

    folder = existing(path, "forecast.zarr")
    try:
        with xr.open_zarr(folder, consolidated=False, chunks=None) as dataset:
            arrays, attrs = plain_arrays(dataset), decode(dataset.attrs)
            days = np.asarray(dataset["day"].values, dtype=float)
    except (OSError, KeyError, ValueError) as error:
        raise broken(folder, error) from None
    volumes = {name: value for name, value in arrays.items() if name.startswith("volume_")}
    maps = {name: value for name, value in arrays.items() if name.startswith("map_")}
    return days, volumes, maps, attrs


def write_curves(
    path: PathLike,
    subjects: Sequence[str],
    days: np.ndarray,
    curves: Mapping[str, np.ndarray],
    unit: str,
    attrs: Mapping[str, Any],
) -> Path:
    """Write a forecast of many subjects as an xarray Dataset with dimensions draw, subject, time.

    `days` [subject, time]; `curves` [draw, subject, time] in `unit`; `attrs` as in `write_posterior`.
    """
    import xarray as xr

    data: dict[str, Any] = {"day": (("subject", "time"), np.asarray(days, float), {"unit": "day"})}
    for name, values in curves.items():
        data[name] = (("draw", "subject", "time"), np.asarray(values), {"unit": unit})
    dataset = xr.Dataset(data, attrs=encode({**attrs, "subjects": list(subjects), "unit": unit}))
    target = Path(path)
    with atomic_path(target) as temporary:
        dataset.to_zarr(temporary, mode="w", consolidated=False, zarr_format=ZARR_FORMAT)
    return target


def read_curves(path: PathLike) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]:
    """`(days, curves, attrs)` as they were given to `write_curves`; `attrs` holds `subjects` and `unit` as well.

    **Raises:** `InputError` for a missing or broken store.
    """
    import xarray as xr

    folder = existing(path, "forecast.zarr")
    try:
        with xr.open_zarr(folder, consolidated=False, chunks=None) as dataset:
            arrays, attrs = plain_arrays(dataset), decode(dataset.attrs)
    except (OSError, KeyError, ValueError) as error:
        raise broken(folder, error) from None
    return arrays.pop("day"), arrays, attrs


def _chained(group: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, values in arrays.items():
        array = np.asarray(values)
        if array.ndim < len(CHAINS):
            raise ValueError(f"required: {group} {name!r} as [chain, draw, ...]; received: shape {array.shape}")
        data[name] = ((*CHAINS, *(f"{name}_dim_{i}" for i in range(array.ndim - len(CHAINS)))), array)
    return data


def plain_arrays(dataset: Any) -> dict[str, np.ndarray]:
    """By name in alphabetical order: the order in which a folder lists its files is the disk's affair."""
    return {name: np.asarray(dataset[name].values) for name in sorted(map(str, dataset.data_vars))}


def encode(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Text stays as it is; everything else becomes JSON text, and `JSON_ATTRS` lists which."""
    if JSON_ATTRS in attrs:
        raise ValueError(f"required: attrs without the reserved name {JSON_ATTRS!r}")
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, default=_plain) for key, value in attrs.items()
    }
    return texts | {JSON_ATTRS: json.dumps([key for key, value in attrs.items() if not isinstance(value, str)])}


def decode(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The inverse of `encode`."""
    encoded = json.loads(attrs.get(JSON_ATTRS, "[]"))
    return {str(k): json.loads(v) if k in encoded else v for k, v in attrs.items() if k != JSON_ATTRS}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"required: text, numbers, lists or mappings in attrs; received: {type(value).__name__}")


def _require_prefix(name: str, prefix: str) -> None:
    if not name.startswith(prefix):
        raise ValueError(f"required: a variable named {prefix}...; received: {name!r}")


def existing(path: PathLike, what: str) -> Path:
    folder = Path(path)
    if folder.is_dir():
        return folder
    raise InputError(
        file=folder,
        required=f"a folder {what}",
        received="no such folder",
        advice="run the stage that writes it first, or point run=DIR at a finished run",
    )


def broken(folder: Path, error: Exception) -> InputError:
    return InputError(
        file=folder,
        required="a complete Zarr store of this version",
        received=f"{type(error).__name__}: {error}"[:300],
        advice="delete the folder and run the stage again",
    )
