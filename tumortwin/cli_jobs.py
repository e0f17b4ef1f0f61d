"""The verbs that make a run: compose, find the run directory, hand both to the stage, judge. One job or a sweep."""

import ast
import importlib
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tumortwin._errors import InputError
from tumortwin.cli import FAILED, OK, Arguments
from tumortwin.config import (
    Composed,
    ConfigError,
    compose,
    config_dir,
    group_options,
    one_of_each,
    parse,
    repository,
    search_path,
    unknown,
)

if TYPE_CHECKING:
    from tumortwin.runs import Run

_STAGES = "tumortwin.cli_stages"
_NOT_INHERITED = ("task", "run", "cluster", "hydra", "paths", "runtime")
_OF_A_DECISION = ("constraint", "controller", "front", "trial")
_PRIVATE = 0o700
# Results that are printed at the end of a run; the others are in results.json.
_HEADLINES = ("forecast.all.", "forecast.twin.", "forecast.persistence.", "plan.")
_EXPERIMENT = re.compile(r"^\s*(?:from|import)\s+experiments\.(\w+)", re.MULTILINE)


class TargetMissed(Exception):
    """A verdict was `missed`; carries the sentence that says which. Raised only inside the jobs of a sweep."""


def experiments() -> list[str]:
    """Names of the folders of `experiments/` that hold a run.py."""
    root = repository() or Path.cwd()
    return sorted(p.parent.name for p in (root / "experiments").glob("*/run.py"))


def questions() -> list[str]:
    """A line for each of `experiments()`: its name and the question that its run.py opens with."""
    root = (repository() or Path.cwd()) / "experiments"
    asked = {name: ast.parse((root / name / "run.py").read_text(encoding="utf-8")) for name in experiments()}
    wide = max(map(len, asked), default=0)
    said = {name: (ast.get_docstring(code) or "").partition("\n")[0] for name, code in asked.items()}
    return [f"{name:{wide}}  {question}".rstrip() for name, question in said.items()]


def _experiment(name: str) -> Callable[[DictConfig, "Run"], Any]:
    if name not in experiments():
        raise unknown("experiment", name, experiments() or ["a checkout of the repository, which has experiments/"])
    root = str(repository() or Path.cwd())
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(f"experiments.{name}.run").main


def experiment_files(name: str) -> list[Path]:
    """The sources of an experiment and of every experiment that they name in an import, and so on."""
    root = (repository() or Path.cwd()) / "experiments"
    found: dict[str, list[Path]] = {}
    waiting = [name]
    while waiting:
        here = waiting.pop()
        found[here] = sorted((root / here).glob("*.py"))
        named = {m for file in found[here] for m in _EXPERIMENT.findall(file.read_text(encoding="utf-8"))}
        waiting += sorted(m for m in named if m not in found and m not in waiting and (root / m).is_dir())
    return [file for _, files in sorted(found.items()) for file in files]


def _effective(arguments: Arguments) -> list[str]:
    """The overrides of a job: the verb, what the earlier run of `run=DIR` was made with, then what was typed."""
    verb, typed = str(arguments.verb), list(arguments.overrides)
    first = [f"task={verb}"]
    if verb == "reproduce":
        name = arguments.names[0]
        if name not in experiments():
            _experiment(name)
        first += [f"task.experiment={name}", f"name={name}"]
        if name in group_options("experiment", [Path(d) for d in arguments.config_dirs]):
            first.append(f"experiment={name}")
    for override in parse(typed):
        if override.key_or_group == "run" and override.value() is not None:
            if override.is_sweep_override():
                raise ConfigError(
                    f"required: one earlier run\nreceived: {override.input_line!r}\ntry:      one command for each run"
                )
            from tumortwin.runs import overrides_of

            replaced = _replaced(typed)
            first += [o for o in overrides_of(override.value()) if not _own(o) and _group(o) not in replaced]
    return [*first, *typed]


def _replaced(typed: Sequence[str]) -> set[str]:
    """The parts of a plan that are chosen anew: what the earlier run said of them was of other choices. A decision
    brings its own limits and search along, and a front or a trial was asked of another one."""
    chosen = {o.key_or_group for o in parse(typed)} & {"decision", "objective", "risk", *_OF_A_DECISION}
    return chosen.union(_OF_A_DECISION) if "decision" in chosen else chosen


def _own(override: str) -> bool:
    """Whether an override belongs to its own run alone."""
    return _group(override) in _NOT_INHERITED


def _group(override: str) -> str:
    """The group, or the first part of the key, that an override is on."""
    key = override.lstrip("+~").partition("=")[0]
    return key.replace("/", ".").partition(".")[0]


def _check_cluster(config: DictConfig) -> None:
    if config.cluster.slurm and shutil.which("sbatch") is None:
        raise ConfigError(
            f"required: Slurm for cluster={config.cluster.name}\nreceived: no sbatch on this machine\n"
            "try:      cluster=slurm_local, which runs the same jobs here"
        )


def _prepare(config: DictConfig) -> None:
    """Sets JAX up in this process."""
    from tumortwin.runs import configure_backend, configure_environment

    configure_environment()
    configure_backend(config.paths.compilation_cache, x64=config.runtime.x64)


def _body(config: DictConfig) -> tuple[Callable[[DictConfig, "Run"], Any], list[Path]]:
    """The function that does the work, and the data files that it will read."""
    stages = importlib.import_module(_STAGES)
    files = [Path(f) for f in stages.data_files(config)]
    if config.task.name == "reproduce":
        return _experiment(config.task.experiment), [*files, *experiment_files(config.task.experiment)]
    return getattr(stages, f"run_{config.task.name}"), files


def execute(
    config: DictConfig, *, overrides: Sequence[str], hydra: DictConfig | None, argv: Sequence[str], sweep: bool
) -> list[str]:
    """Runs one job in its run directory; returns the names of the targets that were missed."""
    from tumortwin.runs import Progress, Verdict, open_run

    _prepare(config)
    body, files = _body(config)
    mode = str(config.runtime.progress)
    # The jobs of a sweep may share a terminal: no bars there, but lines in their logs.
    progress = Progress("off" if sweep and (mode == "on" or sys.stderr.isatty()) else mode)
    with open_run(
        config,
        overrides=overrides,
        hydra=hydra,
        data_files=files,
        argv=argv,
        repository=repository(),
        progress=progress,
        keep_finished=sweep,
    ) as run:
        if run.finished:
            print(f"already done: {run.directory}", flush=True)
            return []
        try:
            outcome = body(config, run)
        except (InputError, ConfigError):
            run.discard_if_barren()
            raise
        verdicts = [v for v in outcome or () if isinstance(v, Verdict)]
        if verdicts:
            run.write_results(verdicts)
        run.finish()
        _announce(run, verdicts)
    return [v.name for v in verdicts if not v.ok]


def headlines(rows: Sequence[Any]) -> list[Any]:
    """Of the rows of results.json those that a reader asks for first; all where none is."""
    return [r for r in rows if r["target"] is not None or r["name"].startswith(_HEADLINES)] or list(rows)


def _announce(run: "Run", verdicts: Sequence[Any]) -> None:
    for verdict in verdicts:
        print(verdict.line())
    rows = [] if verdicts else run.results()
    shown = headlines(rows)
    for row in shown:
        value = row["value"]
        number = f"{value:.4g}" if isinstance(value, int | float) else value
        unit = "" if row["unit"] in (None, "1") else row["unit"]
        print(f"{row['name']:40} {number} {unit}".rstrip())
    if len(shown) < len(rows):
        print(f"{len(rows) - len(shown)} more numbers: {run.directory / 'results.json'}")
    report = run.directory / "report.html"
    print(f"done: {report if report.is_file() else run.directory}", flush=True)


def _sweep_job(config: DictConfig) -> None:
    """One job of a sweep; the launchers call it, perhaps in another process."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    overrides = [o for o in hydra.overrides.task]
    missed = execute(
        config,
        overrides=overrides,
        hydra=OmegaConf.create(OmegaConf.to_container(hydra)),  # type: ignore[arg-type]
        argv=["tumortwin", config.task.name, *overrides],
        sweep=True,
    )
    if missed:
        raise TargetMissed(f"missed: {', '.join(missed)}")


def _sweep(arguments: Arguments, overrides: list[str], first: Composed) -> int:
    """Every combination, by the launcher of `cluster`. Finished jobs are skipped, unfinished ones resumed."""
    import hydra

    # The launchers exchange pickles in this folder: nobody else may write there.
    stamp = f"{time.strftime('%Y%m%d_%H%M%S')}_{secrets.token_hex(2)}"
    folder = Path(first.config.paths.runs) / first.config.task.name / "sweeps" / stamp
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=_PRIVATE)
    words = ["tumortwin", "-m", f"hydra.sweep.dir='{folder}'", *search_path(arguments.config_dirs), *overrides]
    before, sys.argv = sys.argv, words
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as they are, not as exit code 1
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_sweep_job)()
    except TargetMissed as error:
        print(f"tumortwin: {error}", file=sys.stderr)
        return FAILED
    finally:
        sys.argv = before
        del os.environ["HYDRA_FULL_ERROR"]
        os.environ.update({} if full_error is None else {"HYDRA_FULL_ERROR": full_error})
    return OK


def _show(composed: Composed, part: str, resolve: bool) -> int:
    parts = {"job": composed.config, "hydra": OmegaConf.create({"hydra": composed.hydra})}
    if part == "all":
        parts["all"] = OmegaConf.create({**parts["hydra"], **composed.config})
    if part not in parts:
        raise unknown("part of the configuration", part, ("job", "hydra", "all"))
    print(OmegaConf.to_yaml(parts[part], resolve=resolve), end="")
    return OK


def start(arguments: Arguments) -> int:
    """Runs a job verb; returns the exit code."""
    from tumortwin.runs import configure_environment

    if arguments.verb == "reproduce" and not arguments.names:
        print("\n".join(questions()) or "no experiments here: they are in the repository, not in the installed package")
        return OK
    overrides = _effective(arguments)
    configure_environment()
    jobs = one_of_each(overrides) if arguments.multirun else iter([overrides])
    first = compose(next(jobs), config_dirs=arguments.config_dirs)
    if arguments.cfg is not None:
        return _show(first, arguments.cfg, arguments.resolve)
    for job in [first, *(compose(job, config_dirs=arguments.config_dirs) for job in jobs)]:
        _check_cluster(job.config)
    if arguments.multirun or first.config.cluster.name != "local":
        return _sweep(arguments, overrides, first)
    missed = execute(
        first.config, overrides=overrides, hydra=first.hydra, argv=shlex.split(arguments.command()), sweep=False
    )
    return FAILED if missed else OK
