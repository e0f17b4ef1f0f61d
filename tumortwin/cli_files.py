"""What the pipelines of scans and of tables keep in a run in the same way: checkpoints, posteriors, rows of results."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tumortwin import __version__
from tumortwin.inference import Posterior
from tumortwin.io import read_posterior, write_posterior
from tumortwin.report import judge
from tumortwin.runs import Run

LEVELS = {"low": 0.025, "median": 0.5, "high": 0.975}
TARGETS = {"k_hat": "< 0.7", "ess": "> 400", "r_hat": "< 1.01", "divergences": "0"}


class Checkpoints:
    """States of a calibrator as `.npz` files in the run directory, each renamed into place; `part` names which of
    several calibrations they are of."""

    def __init__(self, run: Run, part: str = "") -> None:
        self.run, self.folder = run, ("checkpoints", part) if part else ("checkpoints",)

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps `arrays`, replacing what was there in one motion."""
        with self.run.writing(*self.folder, f"{name}.npz") as path:
            with open(path, "wb") as handle:
                np.savez(handle, allow_pickle=False, **arrays)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept, or None."""
        path = self.run.path(*self.folder, f"{name}.npz")
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}


def keep_posterior(
    run: Run,
    posterior: Posterior,
    *,
    model: str,
    units: Mapping[str, str],
    info: Mapping[str, Any],
    dropped: Mapping[str, str],
) -> None:
    """posterior.zarr; `info` in place of the posterior's own, `dropped`: paths that nothing was learned of, and why."""
    stats: dict[str, np.ndarray] = {"log_weight": np.log(np.maximum(posterior.weights, 1e-300))}
    if posterior.log_density is not None:
        stats["log_density"] = posterior.log_density
    attrs = {
        "statement": posterior.statement,
        "diagnostics": dict(posterior.diagnostics),
        "info": dict(info),
        "units": dict(units),
        "dropped": dict(dropped),
        "model": model,
        "calibrator": str(run.config.calibrator.get("_target_", "")).rsplit(".", 1)[-1],
        "version": __version__,
    }
    write_posterior(run.path("posterior.zarr"), posterior.draws, posterior.prior_draws, stats, attrs)


def stored_posterior(path: Path) -> Posterior:
    """A posterior as `calibrate` left it on disk."""
    draws, prior, stats, attrs = read_posterior(path)
    return Posterior(
        draws=draws,
        log_weights=None if np.ptp(stats["log_weight"]) == 0 else stats["log_weight"],  # equal: chains, not weights
        diagnostics=attrs["diagnostics"],
        statement=attrs["statement"],
        info={**attrs["info"], "units": attrs["units"], "dropped": attrs["dropped"], "calibrator": attrs["calibrator"]},
        prior_draws=prior,
        log_density=stats.get("log_density"),
    )


def row_of(name: str, value: Any, unit: str, target: str | None = None) -> dict[str, Any]:
    """One entry of results.json."""
    number = None if value is None else float(value)
    return {"name": name, "value": number, "unit": unit, "target": target, "source": None}


def posterior_rows(posterior: Posterior, paths: Iterable[str]) -> list[dict[str, Any]]:
    """The diagnostics, and median and 95 % interval of the parameters at `paths`, element by element."""
    rows = [row_of(f"diagnostics.{name}", v, "1", TARGETS.get(name)) for name, v in posterior.diagnostics.items()]
    for path in paths:
        unit = posterior.info["units"].get(path, "1")
        for label, level in LEVELS.items():
            found = np.asarray(posterior.quantile(path, level))
            for index in np.ndindex(*found.shape):
                name = path if found.ndim == 0 else f"{path}[{','.join(map(str, index))}]"
                rows.append(row_of(f"posterior.{name}.{label}", found[index], unit))
    return rows


def failed_checks(posterior: Posterior) -> tuple[str, ...]:
    """One sentence if a check of the inference failed: which, and what to try."""
    failed = [
        f"{name} is {value:.4g}, wanted {judge(name, value)[0]}"
        for name, value in posterior.diagnostics.items()
        if judge(name, value)[1] is False
    ]
    if not failed:
        return ()
    return (
        f"caution: a check of the inference failed ({'; '.join(failed)}); intervals may be too narrow; "
        "docs/use/choose-a-calibrator.md says what to try",
    )
