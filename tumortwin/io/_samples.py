"""Chunks of simulated samples: Zarr stores, each written whole, so that a killed run goes on where it was."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tumortwin._files import atomic_path
from tumortwin.io._store import ZARR_FORMAT, PathLike, broken, decode, encode, existing, plain_arrays


def write_samples(path: PathLike, arrays: Mapping[str, np.ndarray], attrs: Mapping[str, Any]) -> None:
    """Write one chunk of samples as an xarray Dataset, every array [sample, ...]; float32 fields stay float32.

    `attrs` as in `write_posterior`: what the samples are of (seed, solver, days). Written to a temporary folder and
    renamed: a chunk is there whole or not at all.

    **Raises:** `ValueError` for arrays without the same number of samples.
    """
    import xarray as xr

    counts = {name: len(values) if np.ndim(values) else None for name, values in arrays.items()}
    if len(set(counts.values())) != 1 or None in counts.values():
        raise ValueError(f"required: arrays [sample, ...] with as many samples each; received: {counts}")
    data = {
        name: (("sample", *(f"{name}_dim_{i}" for i in range(np.ndim(values) - 1))), np.asarray(values))
        for name, values in arrays.items()
    }
    dataset = xr.Dataset(data, attrs=encode(attrs))
    with atomic_path(path) as temporary:
        dataset.to_zarr(temporary, mode="w", consolidated=False, zarr_format=ZARR_FORMAT)


def read_samples(path: PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`(arrays, attrs)` as they were given to `write_samples`.

    **Raises:** `InputError` for a missing or broken store.
    """
    import xarray as xr

    folder = existing(path, "of samples")
    try:
        with xr.open_zarr(folder, consolidated=False, chunks=None) as dataset:
            return plain_arrays(dataset), decode(dataset.attrs)
    except (OSError, KeyError, ValueError) as error:
        raise broken(folder, error) from None
