"""What every public thing promises: a docstring, abstract or final, units on parameters, explicit exports."""

import ast
import dataclasses
import functools
import importlib
import inspect
from pathlib import Path

import equinox as eqx
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "geometry", "treatments", "models", "solvers", "observation", "metrics", "inference", "surrogates", "control",
    "twin", "io", "runs", "report", "config",
)  # fmt: skip
PRESENT = [r for r in ROOMS if (ROOT / "tumortwin" / r / "__init__.py").is_file()]
PARAMETRIC = {"models": ("AbstractMechanism", "AbstractInitialCondition"), "observation": ("AbstractObservation",)}


def public(room: str) -> dict[str, object]:
    """Everything that a room's `__init__` exports, by name."""
    module = importlib.import_module(f"tumortwin.{room}")
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    names = [a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
    return {name: getattr(module, name) for name in names}


@functools.cache
def classes() -> list[type]:
    """Every class defined anywhere in the package's modules that the rooms load."""
    found: dict[str, type] = {}
    for room in PRESENT:
        for thing in public(room).values():
            module = inspect.getmodule(thing)
            for c in vars(module).values() if module else ():
                if inspect.isclass(c) and c.__module__.startswith("tumortwin."):
                    found[f"{c.__module__}.{c.__qualname__}"] = c
    return list(found.values())


def ours(c: type) -> list[type]:
    """The bases of a class that are defined in the package."""
    return [b for b in c.__mro__[1:] if b.__module__.startswith("tumortwin.")]


def is_abstract(c: type) -> bool:
    return c.__name__.lstrip("_").startswith("Abstract")


@pytest.mark.parametrize("room", PRESENT)
def test_exports_are_explicit(room):
    tree = ast.parse((ROOT / "tumortwin" / room / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        assert isinstance(node, ast.ImportFrom | ast.Expr), f"{room}/__init__.py holds imports and a docstring only"
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{room}/__init__.py: write `{alias.name} as {alias.name}`"
    assert ast.get_docstring(tree), f"{room}/__init__.py has no docstring"


@pytest.mark.parametrize("room", PRESENT)
def test_public_things_have_docstrings(room):
    things = {n: t for n, t in public(room).items() if inspect.isclass(t) or inspect.isfunction(t)}
    silent = [name for name, thing in things.items() if not (thing.__doc__ or "").strip()]
    for name, thing in things.items():
        methods = vars(thing).items() if inspect.isclass(thing) else ()
        silent += [
            f"{name}.{m}"
            for m, f in methods
            if inspect.isfunction(f)
            and not m.startswith("_")
            and f.__module__.startswith("tumortwin.")
            and not inspect.getdoc(getattr(thing, m))
        ]
    assert not silent, f"{room}: no docstring: {silent}"


def test_a_class_is_abstract_or_final():
    assert len(classes()) > 20
    found = [
        f"{c.__qualname__} derives from {b.__qualname__}" for c in classes() for b in ours(c) if not is_abstract(b)
    ]
    assert not found, f"to vary a little, wrap: {found}"


def test_no_concrete_method_is_overridden():
    found = [
        f"{c.__qualname__}.{name} overrides {b.__qualname__}.{name}"
        for c in classes()
        for b in ours(c)
        for name, method in vars(b).items()
        if inspect.isfunction(method)
        and not name.startswith("__")
        and not getattr(method, "__isabstractmethod__", False)
        and inspect.isfunction(vars(c).get(name))
    ]
    assert not found, found


@pytest.mark.parametrize("room, base", [(r, b) for r, bases in PARAMETRIC.items() for b in bases])
def test_parameters_carry_their_unit(room, base):
    if room not in PRESENT:
        pytest.skip("no such room yet")
    parent = getattr(importlib.import_module(f"tumortwin.{room}"), base)
    children = [c for c in classes() if issubclass(c, parent) and not is_abstract(c)]
    assert children
    bare = [
        f"{c.__name__}.{f.name}"
        for c in children
        for f in dataclasses.fields(c)
        if not f.metadata.get("static") and getattr(f.type, "dim_str", None) == "" and "unit" not in f.metadata
    ]
    assert not bare, f"use tumortwin.params.parameter(unit=...): {bare}"


def test_modules_that_may_be_calibrated_hold_arrays_not_numbers():
    """A bare float in an `eqx.Module` is static to JAX: no gradient, one recompilation a value."""
    found = []
    for room, bases in PARAMETRIC.items():
        if room not in PRESENT:
            continue
        parents = tuple(getattr(importlib.import_module(f"tumortwin.{room}"), b) for b in bases)
        for c in classes():
            if issubclass(c, parents) and issubclass(c, eqx.Module):
                for f in dataclasses.fields(c):
                    if f.type in (float, "float") and not f.metadata.get("static"):
                        found.append(f"{c.__name__}.{f.name}")
    assert not found, found
