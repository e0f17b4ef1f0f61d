"""Types of the root configuration. Groups whose leaves carry `_target_` are open dictionaries; the rest is closed.

An unknown key of a closed node is refused by OmegaConf; an unknown key of an open group, or a value whose type differs
from the one in the YAML file, is refused by `tumortwin.config.compose`.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

Open = dict[str, Any]


@dataclass
class Task:
    """What is to be done: the verb of the command line. `experiment`: the one that is reproduced."""

    name: str = MISSING
    experiment: str | None = None


@dataclass
class Data:
    """`root`: folder of public data sets; null looks in TUMORTWIN_DATA, beside the repository, in the user's cache."""

    root: str | None = None


@dataclass
class Paths:
    """`runs`: folder of run directories. `compilation_cache`: folder of compiled programs (null: the user's cache)."""

    runs: str = "runs"
    compilation_cache: str | None = None


@dataclass
class Runtime:
    """How a run runs.

    `quick`: small sizes, for continuous integration. `x64`: 64-bit parameters and statistics. `progress`: auto (bars on
    a terminal, elsewhere at most a line every half minute), on (bars), off. `resume`: auto (unfinished run of the same
    config and data; in a sweep also the finished), never (always a new directory), finished (a finished run is taken
    as it is). `lock_wait` [s]: how long to wait for another process that works on the same run.
    """

    name: str = "default"
    quick: bool = False
    x64: bool = True
    progress: str = "auto"
    resume: str = "auto"
    lock_wait: float = 120.0


@dataclass
class Cluster:
    """Where the jobs of a sweep run. `slurm`: Slurm must be installed."""

    name: str = "local"
    slurm: bool = False


@dataclass
class Report:
    """The HTML report. `max_figures`: overlays shown; `dpi` of the PNG files beside it."""

    name: str = "html"
    title: str | None = None
    dpi: int = 120


@dataclass
class Root:
    """All of a run's configuration. `horizon` [day] and `draws` of a forecast; `run`: an earlier run it starts from."""

    task: Task = field(default_factory=Task)
    name: str = "default"
    seed: int = 0
    horizon: float = 90.0
    draws: int = 200
    run: str | None = None
    cancer: Open = field(default_factory=dict)
    pipeline: Open = field(default_factory=dict)
    patient: Open = field(default_factory=dict)
    table: Open = field(default_factory=dict)
    split: Open = field(default_factory=dict)
    cohort: Open = field(default_factory=dict)
    model: Open = field(default_factory=dict)
    population: Open = field(default_factory=dict)
    residual: Open = field(default_factory=dict)
    geometry: Open = field(default_factory=dict)
    treatment: Open = field(default_factory=dict)
    observation: Open = field(default_factory=dict)
    prior: Open = field(default_factory=dict)
    solver: Open = field(default_factory=dict)
    calibrator: Open = field(default_factory=dict)
    objective: Open = field(default_factory=dict)
    risk: Open = field(default_factory=dict)
    constraint: Open = field(default_factory=dict)
    controller: Open = field(default_factory=dict)
    decision: Open = field(default_factory=dict)
    front: Open = field(default_factory=dict)
    trial: Open = field(default_factory=dict)
    surrogate: Open = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    cluster: Cluster = field(default_factory=Cluster)
    runtime: Runtime = field(default_factory=Runtime)
    paths: Paths = field(default_factory=Paths)
    data: Data = field(default_factory=Data)
