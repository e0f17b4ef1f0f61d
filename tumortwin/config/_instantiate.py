"""The one way from a configuration to objects: Hydra's `instantiate` behind an allow-list.

A `_target_` may name something defined in `tumortwin`, or one of the named exceptions; where the name leads is checked
as well, so that `tumortwin.some_module.os.system` is refused. The whole tree is checked before anything is built.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from tumortwin._errors import InputError
from tumortwin.config._errors import ConfigError

ALLOWED = ("tumortwin.", "numpyro.distributions.")
"""Prefixes of a `_target_`. Distributions are the one exception: a prior is written in their words."""

_TARGET = "_target_"


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def targets(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every (place, `_target_`) of a configuration, depth first."""
    node = _plain(node)
    if isinstance(node, Mapping):
        if _TARGET in node:
            yield where or "<root>", node[_TARGET]
        for key, value in node.items():
            yield from targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        for i, value in enumerate(node):
            yield from targets(value, f"{where}[{i}]")


def _locate(path: str) -> Any:
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise
        for part in parts[split:]:
            found = getattr(found, part)
        return found
    raise AttributeError(path)


def check_target(path: Any, where: str) -> Any:
    """What `_target_: path` leads to; `ConfigError` when it is not on the allow-list or does not exist."""
    if not isinstance(path, str) or not path.startswith(ALLOWED):
        raise ConfigError(
            f"required: a _target_ that starts with {' or '.join(ALLOWED)}\n"
            f"received: {path!r} at {where}\n"
            "try:      a class of this package; code of your own is passed from Python, not from a configuration"
        )
    try:
        found = _locate(path)
    except (AttributeError, ImportError) as error:
        raise ConfigError(
            f"required: a _target_ that exists\nreceived: {path!r} at {where} ({error})\n"
            "try:      `tumortwin configs` for the choices there are"
        ) from error
    home = getattr(found, "__module__", "") or ""
    if not callable(found) or not f"{home}.".startswith(ALLOWED):
        raise ConfigError(
            f"required: a _target_ defined in {' or '.join(ALLOWED)}\n"
            f"received: {path!r} at {where}, which is defined in {home or 'no module'!r}\n"
            "try:      a class or function of this package"
        )
    return found


def check_targets(node: Any, where: str = "") -> None:
    """`ConfigError` when any `_target_` inside `node` is not allowed. Nothing is built."""
    for place, target in targets(node, where):
        check_target(target, place)


def instantiate(node: Any, *args: Any, where: str = "", **kwargs: Any) -> Any:
    """The object that `node` describes. The only caller of Hydra's `instantiate` in this package.

    `args` and `kwargs` go to the object as in Hydra. Errors: `ConfigError` for a `_target_` outside the allow-list or
    for arguments that do not fit; an `InputError` raised by the object itself comes through as it is.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    plain = _plain(node)
    check_targets(plain, where)
    check_targets({k: v for k, v in kwargs.items() if isinstance(v, dict | list)}, where)
    options = {"_convert_": "all", **kwargs}
    try:
        return hydra.utils.instantiate(plain, *args, **options)
    except InstantiationException as error:
        cause = error.__cause__
        while cause is not None:
            if isinstance(cause, InputError | ConfigError):
                raise cause from error
            cause = cause.__cause__
        raise ConfigError(
            f"required: arguments that fit the object at {where or 'this place'}\nreceived: {error}\n"
            "try:      `--cfg job` to see the composed configuration"
        ) from error


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted path: node} of a nested mapping whose leaves carry `_target_` (a prior), so that
    `prior.mechanisms.proliferation.rate.scale=0.5` is an ordinary override."""
    found: dict[str, Any] = {}
    for key, value in _plain(node).items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and _TARGET not in value:
            found.update(flatten(value, f"{path}."))
        else:
            found[path] = value
    return found
