"""The verbs that answer a question: doctor, runs, cite, configs; `data` is in its own file."""

import importlib.util
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumortwin.cli import OK, Arguments
from tumortwin.cli_cite import references
from tumortwin.cli_jobs import headlines
from tumortwin.config import compose, config_dir, group_options, groups, repository, unknown

_KNOWN_DATA = ("brain_atlas", "tcga_lgg_static", "gbm_brain_tumor_progression")
_SHOWN_RESULTS = 3
_GIB = 1 << 30
_LAUNCHERS = ("hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher")


def print_table(title: str | None, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False).print(table)


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "unknown"
    return f"{total / _GIB:.1f} GiB"


def _data_rows(configured: str | None) -> Iterator[tuple[str, str]]:
    from tumortwin._errors import InputError
    from tumortwin.io import find_data_root

    try:
        root = find_data_root(configured)
    except InputError as error:
        yield "data.root", f"not found; {error.advice}"
        return
    yield "data.root", str(root)
    for name in _KNOWN_DATA:
        yield f"  {name}", "present" if (root / name).is_dir() else "absent"


def _lock_state() -> str:
    """Whether the installed versions are those of requirements.lock."""
    from tumortwin.runs import versions

    root = repository()
    if root is None or not (root / "requirements.lock").is_file():
        return "no lock file here (installed package)"
    locked: dict[str, set[str]] = {}
    for line in (root / "requirements.lock").read_text(encoding="utf-8").splitlines():
        name, equals, rest = line.partition("==")
        if equals and not line.startswith(" "):
            locked.setdefault(name.split("[")[0].strip().lower(), set()).add(rest.split()[0].rstrip(";\\"))
    differ = [
        f"{name} {found} (lock: {' or '.join(sorted(locked[name.lower()]))})"
        for name, found in versions().items()
        if name.lower() in locked and found not in locked[name.lower()]
    ]
    return "versions as locked" if not differ else "differs: " + ", ".join(differ)


def _doctor(arguments: Arguments) -> int:
    from tumortwin.runs import backend_facts, configure_backend, configure_environment, versions

    composed = compose(["task=twin", *arguments.overrides], config_dirs=arguments.config_dirs)
    config = composed.config
    configure_environment()
    configure_backend(config.paths.compilation_cache, x64=config.runtime.x64)
    facts, cache = backend_facts(), os.environ["JAX_COMPILATION_CACHE_DIR"]
    free = shutil.disk_usage(next(p for p in (Path(config.paths.runs).resolve(), Path.cwd()) if p.exists())).free
    rows = [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, version or "not installed") for name, version in versions().items() if name != "python"),
        ("lock", _lock_state()),
        ("device", f"{facts['device_count']} x {facts['device']} ({facts['platform']})"),
        ("dtype", facts["dtype"]),
        ("XLA_FLAGS", facts["xla_flags"]),
        ("cores", str(os.cpu_count())),
        ("memory", _memory()),
        ("disk", f"{free / _GIB:.1f} GiB free for {config.paths.runs}"),
        ("compile cache", f"{cache} ({'there' if Path(cache).is_dir() else 'not there'})"),
        ("Slurm", shutil.which("sbatch") or "not found (cluster=slurm_local runs its jobs here)"),
        ("launchers", "present" if all(map(_importable, _LAUNCHERS)) else "absent: pip install 'tumortwin[cluster]'"),
        ("configurations", str(config_dir())),
        *_data_rows(config.data.root),
    ]
    print_table(None, ["", ""], [list(row) for row in rows])
    return OK


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _runs(arguments: Arguments) -> int:
    from tumortwin.runs import list_runs

    root = Path(compose(["task=twin", *arguments.overrides]).config.paths.runs)
    rows = []
    for run in list_runs(root):
        rows_shown = headlines(run.results)[:_SHOWN_RESULTS]
        shown = [f"{r['name']} {_number(r['value'])} {_unit(r['unit'])}".strip() for r in rows_shown]
        state = "done" if run.done else "unfinished"
        rows.append([run.task, run.name, run.started[:16], state, str(run.directory), "; ".join(shown)])
    if not rows:
        print(f"no runs in {root}")
        return OK
    print_table(None, ["task", "name", "started", "state", "directory", "results"], rows)
    return OK


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _unit(unit: str | None) -> str:
    return "" if unit in (None, "1") else unit


def _cite(arguments: Arguments) -> int:
    composed = compose(["task=twin", *arguments.overrides], config_dirs=arguments.config_dirs)
    seen: Counter[str] = Counter()
    for reference in references(composed.config):
        again = seen[reference.key]
        seen[reference.key] += 1
        print(
            reference.bibtex(again) if arguments.bibtex else f"{reference.text}\n    for {', '.join(reference.used_by)}"
        )
    return OK


def _configs(arguments: Arguments) -> int:
    extra = [Path(d) for d in arguments.config_dirs]
    if not arguments.names:
        print_table(None, ["group", "choices"], [[g, " ".join(group_options(g, extra))] for g in groups(extra)])
        return OK
    group = arguments.names[0]
    if group not in groups(extra):
        raise unknown("configuration group", group, groups(extra))
    for option in group_options(group, extra):
        file = next(
            f / group / f"{option}.yaml" for f in (config_dir(), *extra) if (f / group / f"{option}.yaml").is_file()
        )
        print(f"--- {group}={option}\n{file.read_text(encoding='utf-8').rstrip()}\n")
    return OK


def _data(arguments: Arguments) -> int:
    from tumortwin import cli_data

    return cli_data.answer(arguments)


def answer(arguments: Arguments) -> int:
    """Answers one of the questions; returns the exit code."""
    answers = {"data": _data, "doctor": _doctor, "runs": _runs, "cite": _cite, "configs": _configs}
    return answers[str(arguments.verb)](arguments)
