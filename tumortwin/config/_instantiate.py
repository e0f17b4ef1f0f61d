"""The one way from a configuration to objects: Hydra's `instantiate` behind an allow-list.

A `_target_` may name a public class or function of the rooms in `ALLOWED`, nothing else: no private name, no module in
between, none of the rooms that write files or start processes. The whole tree is checked before anything is built.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from tumortwin._errors import InputError
from tumortwin.config._errors import ConfigError, unknown

_ROOMS = ("geometry", "treatments", "models", "solvers", "observation", "metrics", "inference", "surrogates", "control")
_FUNCTIONS = {
    "tumortwin.cli_patient": ("atlas_glioma", "folder", "gbm_progression", "tcga_lgg"),
    "tumortwin.cli_table": ("from_day", "last_readings", "nothing", "some_subjects"),
}
_DISTRIBUTIONS = {"numpyro.distributions": "Distribution", "numpyro.distributions.transforms": "Transform"}
ALLOWED = (*(f"tumortwin.{room}" for room in _ROOMS), *_FUNCTIONS, *_DISTRIBUTIONS)
"""Where a `_target_` may lead: what the rooms without files or processes export, the loaders of patients, the splits of
tables, and, as a prior is written in their words, NumPyro's distributions."""

_TARGET = "_target_"
FITS, MINIMAL_GAIN = "_fits_", "_minimal_gain_"
"""What a leaf says of itself, beside the arguments of its object: what it is for, and the smallest gain that counts."""


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


def _public(module: str) -> dict[str, Any]:
    """What `module` exports and a configuration may build: {name: class or function}, defined in the same package."""
    root = f"{module.partition('.')[0]}."
    base = _DISTRIBUTIONS.get(module)
    found = {}
    for name, thing in vars(importlib.import_module(module)).items():
        if name.startswith("_") or not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        if module in _FUNCTIONS and name not in _FUNCTIONS[module]:
            continue
        if base is not None and not (inspect.isclass(thing) and any(c.__name__ == base for c in thing.__mro__)):
            continue
        if thing.__module__.startswith(root):
            found[name] = thing
    return found


def check_target(path: Any, where: str) -> Any:
    """What `_target_: path` leads to; `ConfigError` when it is not on the allow-list or does not exist."""
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if module not in ALLOWED:
        raise ConfigError(
            f"required: a _target_ that is a public name of {', '.join(ALLOWED)}\n"
            f"received: {path!r} at {where}\n"
            "try:      a class of this package; code of your own is passed from Python, not from a configuration"
        )
    choices = _public(module)
    if name not in choices:
        raise unknown(f"class or function of {module} for {where}", path, [f"{module}.{n}" for n in choices])
    return choices[name]


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
    if isinstance(plain, Mapping):
        plain = {key: value for key, value in plain.items() if key not in (FITS, MINIMAL_GAIN)}
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
        raise ConfigError(_in_lines(error, where or "this place")) from error


def _in_lines(error: Exception, where: str) -> str:
    """What an object said of its arguments, in the three lines of every error.

    Ours say `required: ...; received: ...` with or without `; try: ...`; of others the words stand under `received`.
    """
    said = str(error.__cause__ or error)
    parts = re.fullmatch(r"required: (.*?)[;,]? received:? (.*?)(?:; try: (.*))?", said, re.DOTALL)
    look = "`--cfg job` to see the composed configuration"
    if parts is None:
        return f"required: arguments that fit the object at {where}\nreceived: {error}\ntry:      {look}"
    required, received, advice = parts.groups()
    return f"required: {required}\nreceived: {received}\nwhere:    {where}\ntry:      {advice or look}"


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
