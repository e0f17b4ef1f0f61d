"""Composition of a configuration from groups and overrides, with every mistake caught here.

Hydra refuses an unknown key of a typed node; the rest is ours: the YAML files are the schema. A key that no file has is
refused with the nearest ones offered, and a value must be of the kind of the value that it replaces.
"""

import copy
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tumortwin._paths import config_dir
from tumortwin.config._errors import ConfigError, unknown
from tumortwin.config._instantiate import check_target, check_targets

_ROOT = "config"
_VERSION_BASE = "1.3"
_LAUNCHERS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_SWEEPERS = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",)


class Composed(NamedTuple):
    """`config` of the run and `hydra`, Hydra's own part; `overrides` as they were given."""

    config: DictConfig
    hydra: DictConfig
    overrides: tuple[str, ...]


def register_schema() -> None:
    """Makes the typed root known to Hydra under the name `schema`."""
    from hydra.core.config_store import ConfigStore

    from tumortwin.config.schema import Root

    ConfigStore.instance().store(name="schema", node=Root)


def groups(extra: Sequence[Path] = ()) -> list[str]:
    """Names of the configuration groups."""
    folders = (config_dir(), *extra)
    return sorted({p.name for f in folders for p in f.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))})


def group_options(group: str, extra: Sequence[Path] = ()) -> list[str]:
    """Names of the choices of a group; what begins with an underscore is only what several of them share."""
    found = {p.stem for f in (config_dir(), *extra) for p in (f / group).glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def parse(overrides: Sequence[str]) -> list[Any]:
    """Hydra's `Override` objects; `ConfigError` says what has to be quoted."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(
                f"required: overrides of the form key=value\nreceived: {text!r} ({str(error).splitlines()[0]})\n"
                f"try:      {_quoted(text)}; a value with commas, parentheses, spaces or = is quoted twice,\n"
                "          once for the shell and once for the configuration"
            ) from error
    return parsed


def _quoted(text: str) -> str:
    key, equals, value = text.partition("=")
    return f"\"{key}='{value}'\"" if equals else "key=value"


def one_of_each(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Plain override lists that together try every value of every swept key once."""
    parsed = parse(overrides)
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    first = [c[0] for c in choices]
    yield first
    for i, choice in enumerate(choices):
        for value in choice[1:]:
            yield [*first[:i], value, *first[i + 1 :]]


def search_path(config_dirs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The override that adds folders of configurations, an empty list when there are none."""
    folders = ",".join(f"'file://{Path(d).expanduser().resolve()}'" for d in config_dirs)
    return [f"hydra.searchpath=[{folders}]"] if folders else []


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted path, value) including the mappings themselves."""
    for key in node:
        path = f"{prefix}{key}"
        value = node._get_node(key)
        yield path, value
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from _leaves(value, f"{path}.")


def _kind(value: Any) -> str | None:
    if isinstance(value, Mapping | DictConfig):
        return "a mapping"
    if isinstance(value, list | tuple | ListConfig):
        return "a list"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}.get(type(value))


def _fits(old: Any, new: Any) -> bool:
    wanted, got = _kind(old), _kind(new)
    if old is None or new is None or wanted is None or wanted == got:
        return True
    if wanted == "a number":
        return got == "a whole number"
    return wanted == "a whole number" and isinstance(new, float) and new == int(new)


def _value(node: DictConfig, path: str) -> Any:
    return OmegaConf.select(node, path, throw_on_missing=False)


def _check_group(key: str, value: Any, extra: Sequence[Path]) -> None:
    if key not in groups(extra):
        if "/" not in key:
            return
        raise unknown("configuration group", key, groups(extra))
    names = value if isinstance(value, list) else [value]
    for name in names:
        options = group_options(key, extra)
        if name is not None and str(name) not in options:
            raise unknown(f"choice of {key}", str(name), options)


def _compose(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException

    try:
        return hydra_compose(_ROOT, overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        cause = f"\n          {error.__cause__}" if error.__cause__ else ""
        first = str(error).strip().splitlines()
        advice = "`tumortwin configs` for the groups and their choices"
        if "hydra/launcher" in str(error):
            advice = "pip install 'tumortwin[cluster]' for the launchers of sweeps, or cluster=local"
        raise ConfigError(
            "required: a configuration that composes\n"
            f"received: {first[0] if first else repr(error)}{cause}\ntry:      {advice}"
        ) from error


@functools.lru_cache(maxsize=32)
def _compose_kept(chosen: tuple[str, ...], where: str, changed: int) -> DictConfig:
    """The choices of groups from the package's own folder as it is since `changed`, asked for from the folder `where`;
    read, never written to."""
    del where, changed
    found = _compose(chosen)
    OmegaConf.set_readonly(found, True)
    return found


def _last_change() -> int:
    """When a file or folder of the package's configurations was last written [ns]."""
    root = config_dir()
    return max(path.stat().st_mtime_ns for path in (root, *root.rglob("*")))


def _check_keys(base: DictConfig, keys: Sequence[str]) -> None:
    known = dict(_leaves(base))
    for key in keys:
        if key not in known:
            raise unknown("configuration key", key, known)


def _check_kinds(base: DictConfig, full: DictConfig, keys: Sequence[str]) -> None:
    for key in keys:
        old, new = _value(base, key), _value(full, key)
        if not _fits(old, new):
            raise ConfigError(
                f"required: {key} is {_kind(old)} (such as {old!r})\nreceived: {new!r}, {_kind(new)}\n"
                f"try:      a value of that kind; a word that looks like a number is quoted: {key}=\"'{new}'\""
            )


def _check_root(config: DictConfig) -> None:
    from tumortwin.config.schema import Root

    if not _NAME.fullmatch(str(config.name)):
        raise ConfigError(
            f"required: a name of letters, digits and ._=+-\nreceived: {config.name!r}\ntry:      name=my_run"
        )
    known = {entry.name for entry in dataclasses.fields(Root)}
    for key in map(str, config):
        if key not in known:
            raise unknown("configuration key", key, known)
    if missing := known - set(map(str, config)):
        raise ConfigError(f"required: {', '.join(sorted(missing))}\nreceived: nothing there\ntry:      without ~")


def _check_hydra(node: DictConfig) -> None:
    """Hydra builds its launcher, sweeper and callbacks itself: only the known ones are let through."""
    launcher, sweeper = node.launcher.get("_target_"), node.sweeper.get("_target_")
    if launcher not in _LAUNCHERS or sweeper not in _SWEEPERS or node.callbacks:
        raise ConfigError(
            f"required: a known launcher and sweeper, and no callbacks\n"
            f"received: launcher {launcher!r}, sweeper {sweeper!r}, callbacks {list(node.callbacks or ())}\n"
            "try:      cluster=local, joblib, slurm_cpu, slurm_gpu or slurm_local"
        )


def _is_group(override: Any, extra: Sequence[Path]) -> bool:
    key = override.key_or_group
    return key.startswith("hydra/") or key in groups(extra)


def compose(overrides: Sequence[str] = (), *, config_dirs: Sequence[str | os.PathLike[str]] = ()) -> Composed:
    """The configuration of `overrides` (Hydra's syntax, no sweeps), checked; for tests, notebooks and every verb.

    `config_dirs`: further folders of configurations, looked into after the package's own. Raises `ConfigError`.
    """
    from hydra import initialize_config_dir

    extra = [Path(d).expanduser().resolve() for d in config_dirs]
    for folder in extra:
        if not folder.is_dir():
            raise ConfigError(f"required: a folder of configurations\nreceived: {folder}\ntry:      an existing folder")
    register_schema()
    parsed = parse(overrides)
    search = search_path(config_dirs)
    chosen, keys = list(search), []
    for override in parsed:
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(
                f"required: one value a key\nreceived: {override.input_line!r}\n"
                f"try:      -m for a sweep, or quotes when this is one value: {_quoted(override.input_line)}"
            )
        if _is_group(override, extra):
            if not key.startswith("hydra/"):
                _check_group(key, override.value(), extra)
            chosen.append(override.input_line)
        elif "/" in key:
            raise unknown("configuration group", key, groups(extra))
        elif key.endswith("_target_"):
            check_target(override.value(), key)
        if not (_is_group(override, extra) or override.is_add() or key.startswith("hydra.")):
            keys.append(key)
    with initialize_config_dir(config_dir=str(config_dir()), job_name="tumortwin", version_base=_VERSION_BASE):
        base = _compose(chosen) if search else _compose_kept(tuple(chosen), os.getcwd(), _last_change())
        _check_keys(base, keys)
        full = base if len(chosen) == len(search) + len(parsed) else _compose([*search, *overrides])
        _check_kinds(base, full, keys)
    _check_hydra(full.hydra)
    hydra = copy.deepcopy(full.hydra)
    config = OmegaConf.masked_copy(full, [str(k) for k in full if k != "hydra"])
    OmegaConf.set_struct(config, True)
    _check_root(config)
    _check_pipeline(config)
    _resolve_check(config)
    check_targets(config)
    return Composed(config, hydra, tuple(overrides))


def _check_pipeline(config: DictConfig) -> None:
    from tumortwin.config._fits import check_pipeline  # which looks at the choices of groups

    check_pipeline(config)


def _resolve_check(config: DictConfig) -> None:
    try:
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"required: every value of the configuration\n"
            f"received: {str(error).splitlines()[0]}, at {error.full_key or 'the root'}\n"
            f"try:      {error.full_key or 'key'}=VALUE on the command line"
        ) from error
