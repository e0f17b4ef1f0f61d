"""A run directory and what may be done in it."""

import contextlib
import copy
import dataclasses
import shutil
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tumortwin._errors import InputError
from tumortwin._files import atomic_path, disk_full, write_text
from tumortwin.runs._identity import config_of, digest, run_directory
from tumortwin.runs._json import read_json, write_json
from tumortwin.runs._lock import Lock
from tumortwin.runs._progress import Progress
from tumortwin.runs._provenance import now
from tumortwin.runs._tracker import AbstractTracker
from tumortwin.runs._verdict import Verdict

DONE, PROVENANCE, RESULTS, STAGES, LOG, METRICS, LOCK = (
    "DONE", "provenance.json", "results.json", "stages.json", "log.txt", "metrics.jsonl", ".lock",
)  # fmt: skip
_BOOKKEEPING = {PROVENANCE, LOG, METRICS, LOCK, ".hydra"}
_RESULT_KEYS = ("name", "value", "unit", "target", "source")


@dataclasses.dataclass
class Stage:
    """One part of a run. `needed` is False when its files are there from an earlier, killed attempt."""

    name: str
    needed: bool


class Run:
    """One run directory: files written whole, stages that are skipped when they are done, a log, numbers, results.

    `directory`; `identity` hash of configuration and data; `config`; `progress`; `resumed` True when an unfinished
    directory was taken up again; `finished` True when there is nothing left to do. Made by `open_run`; a context
    manager.
    """

    def __init__(
        self,
        directory: Path,
        *,
        identity: str,
        config: DictConfig,
        progress: Progress,
        tracker: AbstractTracker | None,
        lock: Lock | None,
        resumed: bool,
        finished: bool,
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.config = config
        self.progress = progress
        self.resumed = resumed
        self.finished = finished
        self._tracker = tracker
        self._lock = lock

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and not self.finished:
            lines = traceback.format_exception(error) if isinstance(error, Exception) else [repr(error)]
            with contextlib.suppress(OSError, InputError):
                self.log("stopped: " + "".join(lines).strip())
        self.close()

    def close(self) -> None:
        """Closes the files and lets the directory go."""
        if self._tracker is not None:
            self._tracker.close()
        if self._lock is not None:
            self._lock.release()

    # --- files ---

    def path(self, *parts: str) -> Path:
        """A path inside the directory; its folder exists afterwards. Refuses to lead outside."""
        target = self.directory.joinpath(*parts)
        if not target.resolve().is_relative_to(self.directory.resolve()):
            raise InputError(
                file=target, required="a path inside the run directory", received=str(target), advice="a relative name"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def writing(self, *parts: str) -> contextlib.AbstractContextManager[Path]:
        """`with run.writing("posterior.zarr") as path:` a temporary name, renamed when the block ends well."""
        return atomic_path(self.path(*parts))

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file of the directory."""
        write_json(self.path(name), value)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file of the directory."""
        write_text(self.path(name), text)

    # --- the run that this one starts from ---

    @property
    def earlier(self) -> Path | None:
        """The run directory of `run=...`, or None."""
        return run_directory(self.config.run) if self.config.get("run") else None

    def source(self, name: str) -> Path:
        """The path of `name` in this run, else in the run it starts from, and so on back; `InputError` if none."""
        looked, directory = [self.directory], self.earlier
        if (self.directory / name).exists():
            return self.directory / name
        while directory is not None and directory not in looked:
            if (directory / name).exists():
                return directory / name
            looked.append(directory)
            before = config_of(directory).get("run")
            directory = run_directory(before) if before else None
        raise InputError(
            file=self.directory / name,
            required=f"{name} of this run or of the run it starts from",
            received=f"not found in {', '.join(str(d) for d in looked)}",
            advice="run=DIR, a run that has it (`tumortwin runs` lists them), or `tumortwin twin` for the whole chain",
        )

    # --- what happens ---

    def key(self, name: str) -> Any:
        """The random key of a named purpose: the seed of the run, folded with the CRC-32 of `name`."""
        import jax

        return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(name.encode()))

    def seeded(self, seed: int) -> "Run":
        """The same run with the configuration and the keys of another seed (a study of many virtual patients)."""
        other = copy.copy(self)
        other.config = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(self.config)))
        other.config.seed = seed
        return other

    def log(self, text: str) -> None:
        """A line in log.txt."""
        path = self.directory / LOG
        try:
            with open(path, "a", encoding="utf-8") as handle:
                handle.write(f"{now()} {text}\n")
        except OSError as error:
            raise disk_full(error, path) or error from error

    def say(self, text: str) -> None:
        """A line in log.txt, and on the terminal if somebody watches."""
        self.log(text)
        self.progress.say(text)

    def metrics(self, step: int, **values: Any) -> None:
        """Named numbers of a step, to metrics.jsonl."""
        if self._tracker is not None:
            self._tracker.log(step, **values)

    @contextlib.contextmanager
    def stage(
        self, name: str, *, outputs: Iterable[str] = (), inputs: Mapping[str, Any] | None = None
    ) -> Iterator[Stage]:
        """A part of the run that is not done twice.

        `with run.stage("forecast", outputs=["forecast.zarr"]) as stage:` and inside `if stage.needed: ...`. It is not
        needed when every one of `outputs` exists and the hash kept with them (configuration, data, `inputs`) is the
        same. It is recorded as done when the block ends without an error and the outputs are there.
        """
        wanted = [str(o) for o in outputs]
        signature = digest({"identity": self.identity, "stage": name, "inputs": dict(inputs or {})})
        record = self._stages().get(name, {})
        there = all((self.directory / o).exists() for o in wanted)
        stage = Stage(name, needed=not (there and record.get("signature") == signature))
        if not stage.needed:
            self.log(f"{name}: already done")
            yield stage
            return
        self.log(f"{name}: started")
        start = time.monotonic()
        with self.progress.task(name):
            yield stage
        if missing := [o for o in wanted if not (self.directory / o).exists()]:
            raise RuntimeError(f"required: stage {name} writes {missing}; received: nothing there; try: its own code")
        seconds = round(time.monotonic() - start, 3)
        done = {"signature": signature, "outputs": wanted, "seconds": seconds, "finished": now()}
        write_json(self.directory / STAGES, {**self._stages(), name: done})
        self.log(f"{name}: done in {seconds} s")

    def _stages(self) -> dict[str, Any]:
        file = self.directory / STAGES
        return read_json(file) if file.is_file() else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds of the stages that are done, by name."""
        return {name: record["seconds"] for name, record in self._stages().items()}

    def write_results(self, results: Iterable[Verdict | Mapping[str, Any]]) -> None:
        """results.json: a flat list of {name, value, unit, target, source}; what stands there is replaced."""
        rows = [r.result() if isinstance(r, Verdict) else {k: r.get(k) for k in _RESULT_KEYS} for r in results]
        write_json(self.directory / RESULTS, rows)

    def results(self) -> list[dict[str, Any]]:
        """The entries of results.json, empty when there is none yet."""
        file = self.directory / RESULTS
        return read_json(file) if file.is_file() else []

    def finish(self) -> None:
        """Writes DONE, last of all."""
        write_text(self.directory / DONE, now() + "\n")
        self.finished = True

    def discard_if_barren(self) -> bool:
        """Removes the directory when it holds no result at all (bad input was found before anything was made)."""
        barren = not self.resumed and not self.finished and self._lock is not None
        if barren and {p.name for p in self.directory.iterdir()} <= _BOOKKEEPING:
            shutil.rmtree(self.directory, ignore_errors=True)
            for parent in self.directory.parents[:2]:
                with contextlib.suppress(OSError):
                    (parent / LOCK).unlink(missing_ok=True) if not _has_runs(parent) else None
                    parent.rmdir()
            return True
        return False


def _has_runs(parent: Path) -> bool:
    return any(p.is_dir() for p in parent.iterdir())
