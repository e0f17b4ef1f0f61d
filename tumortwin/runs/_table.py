"""The runs there are."""

import dataclasses
from pathlib import Path
from typing import Any

from tumortwin._errors import InputError
from tumortwin.runs._json import read_json
from tumortwin.runs._run import DONE, PROVENANCE, RESULTS


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """One row of `tumortwin runs`."""

    directory: Path
    task: str
    name: str
    started: str
    done: bool
    seed: int | None
    results: tuple[dict[str, Any], ...]


def list_runs(root: Path) -> list[RunSummary]:
    """Every run below `root`, oldest first; a directory that cannot be read is left out."""
    found = []
    for file in sorted(root.glob(f"*/*/*/{PROVENANCE}")):
        directory = file.parent
        if directory.name.startswith("."):
            continue
        try:
            facts = read_json(file)
            results = read_json(directory / RESULTS) if (directory / RESULTS).is_file() else []
        except InputError:
            continue
        task, name = directory.parts[-3], directory.parts[-2]
        done = (directory / DONE).is_file()
        started = str(facts.get("started", ""))
        found.append(RunSummary(directory, task, name, started, done, facts.get("seed"), tuple(results)))
    return sorted(found, key=lambda r: r.started)
