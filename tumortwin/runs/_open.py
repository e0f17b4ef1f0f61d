"""From a configuration to its run directory: the unfinished one of the same configuration and data, or a new one."""

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tumortwin._files import atomic_path, remove_leftovers
from tumortwin.runs._identity import hash_files, identity_of
from tumortwin.runs._json import read_json, write_json
from tumortwin.runs._lock import Lock, RunLocked, locked
from tumortwin.runs._progress import Progress
from tumortwin.runs._provenance import git_state, now, provenance
from tumortwin.runs._run import DONE, LOCK, METRICS, PROVENANCE, Run
from tumortwin.runs._tracker import JsonlTracker

_SHORT = 8
_SEARCH_WAIT = 60.0  # [s] for the moment in which a directory is looked for or made
RESUME = ("auto", "never", "finished")


def _same(parent: Path, identity: str) -> list[Path]:
    """Run directories of this identity, newest first."""
    found = [d for d in parent.iterdir() if not d.name.startswith(".") and (d / PROVENANCE).is_file()]
    return sorted((d for d in found if read_json(d / PROVENANCE).get("identity") == identity), reverse=True)


def _new(
    parent: Path, facts: Mapping[str, Any], config: DictConfig, overrides: Sequence[str], hydra: DictConfig | None
) -> tuple[Path, Lock]:
    stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    base = f"{stamp}_{facts['identity'][:_SHORT]}"
    directory, count = parent / base, 1
    while directory.exists():
        count += 1
        directory = parent / f"{base}-{count}"
    with atomic_path(directory) as temporary:
        (temporary / ".hydra").mkdir(parents=True)
        OmegaConf.save(config, temporary / ".hydra" / "config.yaml", resolve=True)
        OmegaConf.save(OmegaConf.create(list(overrides)), temporary / ".hydra" / "overrides.yaml")
        if hydra is not None:
            OmegaConf.save(OmegaConf.create({"hydra": hydra}), temporary / ".hydra" / "hydra.yaml")
        write_json(temporary / PROVENANCE, dict(facts))
        lock = Lock(temporary / LOCK)
        if not lock.acquire(0.0):
            raise RunLocked(f"a new directory is locked: {temporary}")
    lock.path = directory / LOCK
    return directory, lock


def _resume(directory: Path, repository: Path | None) -> list[str]:
    """Clears what the killed process left and notes the new start; returns what the reader should know."""
    remove_leftovers(directory)
    facts = read_json(directory / PROVENANCE)
    facts["resumed"] = [*facts.get("resumed", []), now()]
    write_json(directory / PROVENANCE, facts)
    before, here = facts.get("git", {}).get("sha"), git_state(repository)["sha"]
    return (
        []
        if before == here
        else [f"the commit changed since this run began, the package did not: {before} then, {here} now"]
    )


def open_run(
    config: DictConfig,
    *,
    overrides: Sequence[str] = (),
    hydra: DictConfig | None = None,
    data_files: Iterable[str | os.PathLike[str]] = (),
    argv: Sequence[str] = (),
    repository: Path | None = None,
    progress: Progress | None = None,
    keep_finished: bool = False,
) -> Run:
    """The run directory `runs/<task>/<name>/<date>_<time>_<id>` of `config` and its data, locked for this process.

    The same configuration and data find their unfinished directory again; a finished one is left alone and a new one
    begun, unless `runtime.resume=finished` or `keep_finished` (a sweep), which return it with `finished` True.
    Errors: `InputError` for unreadable data; `RunLocked` when another process works on the same run for longer than
    `runtime.lock_wait` seconds.
    """
    progress = Progress("off") if progress is None else progress
    data = hash_files(data_files)
    identity = identity_of(config, data)
    parent = Path(config.paths.runs) / config.task.name / config.name
    resume, wait = config.runtime.resume, float(config.runtime.lock_wait)
    shared: dict[str, Any] = {"identity": identity, "config": config, "progress": progress}
    with locked(parent / LOCK, _SEARCH_WAIT):
        same = [] if resume == "never" else _same(parent, identity)
        done = [d for d in same if (d / DONE).is_file()]
        open_ones = [d for d in same if d not in done]
        if done and (keep_finished or resume == "finished"):
            return Run(done[0], **shared, tracker=None, lock=None, resumed=True, finished=True)
        if not open_ones:
            facts = provenance(identity=identity, seed=config.seed, data=data, argv=argv, repository=repository)
            directory, lock = _new(parent, facts, config, overrides, hydra)
            tracker = JsonlTracker(directory / METRICS)
            return Run(directory, **shared, tracker=tracker, lock=lock, resumed=False, finished=False)
        directory = open_ones[0]
        lock = Lock(directory / LOCK)
        free = lock.acquire(0.0)
    if not free:
        progress.say(f"waiting for process {lock.owner()}, which works on the same run: {directory}")
        if not lock.acquire(wait):
            raise RunLocked(
                "required: a run that no other process works on\n"
                f"received: process {lock.owner()} works on {directory}\n"
                "try:      the same command when it is done, or runtime.resume=never for a run of its own"
            )
    if (directory / DONE).is_file():
        lock.release()
        return Run(directory, **shared, tracker=None, lock=None, resumed=True, finished=True)
    notes = _resume(directory, repository)
    tracker = JsonlTracker(directory / METRICS)
    run = Run(directory, **shared, tracker=tracker, lock=lock, resumed=True, finished=False)
    for note in ("resumed", *notes):
        run.log(note)
    return run
