"""Parameters are addressed by path: `mechanisms.proliferation.rate`.

A path walks attributes and dictionary keys of a pytree of modules. `parameter` declares a field that may be
calibrated: it is always an array (a bare Python number in an Equinox module is static: no gradient, and one
recompilation per value) and it carries its unit.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

T = TypeVar("T")


def as_parameter(value: Any) -> Array:
    """`value` as an array of its own floating dtype, never weakly typed.

    A weak type (what `jnp.asarray(0.1)` has) is part of a compiled function's signature: a model with default values
    and the same model with calibrated ones would be compiled twice. Integers become the default float.
    """
    array = jnp.asarray(value)
    return jnp.asarray(array, dtype=jnp.result_type(array, float))


def parameter(*, unit: str, negligible: float = 0.0, **kwargs: Any) -> Any:
    """An array field of an `eqx.Module` that a prior may address, with its unit in the field's metadata.

    `negligible`, for a variable of a state: an amount, in that unit, that is as good as nothing. A drug that decays
    need not be followed to its last molecule; a few resistant cells must be (the default, 0).
    """
    return eqx.field(converter=as_parameter, metadata={"unit": unit, "negligible": negligible}, **kwargs)


def _children(node: Any) -> Iterator[tuple[str, Any, str | None]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key), value, None
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        for entry in dataclasses.fields(node):
            if not entry.metadata.get("static", False):
                yield entry.name, getattr(node, entry.name), entry.metadata.get("unit")


def parameter_units(tree: Any, prefix: str = "") -> dict[str, str]:
    """Every parameter path of `tree` with its unit."""
    found: dict[str, str] = {}
    for name, value, unit in _children(tree):
        path = f"{prefix}{name}"
        if unit is not None:
            found[path] = unit
        else:
            found.update(parameter_units(value, f"{path}."))
    return found


def _missing(tree: Any, path: str) -> KeyError:
    known = sorted(parameter_units(tree))
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.3) or known
    return KeyError(f"required: a parameter path of the model; received: {path!r}; try one of: {', '.join(near)}")


def get_parameter(tree: Any, path: str) -> Any:
    """The value at `path`. Raises `KeyError` naming the nearest paths when there is none."""
    node = tree
    for name in path.split("."):
        match = [value for key, value, _ in _children(node) if key == name]
        if not match:
            raise _missing(tree, path)
        node = match[0]
    return node


def set_parameters(tree: T, values: Mapping[str, Any]) -> T:
    """A copy of `tree` with the parameters at the given paths replaced; unknown paths raise `KeyError`."""
    known = parameter_units(tree)
    for path in values:
        if path not in known:
            raise _missing(tree, path)
    for path, value in values.items():
        old = get_parameter(tree, path)
        new = jnp.asarray(value, dtype=old.dtype)
        tree = eqx.tree_at(lambda node, p=path: get_parameter(node, p), tree, new)
    return tree
