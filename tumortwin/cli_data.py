"""The verb `data`: what public data there is, where it lies, whether it is the registered one, and how to get it."""

from pathlib import Path

from tumortwin._errors import InputError
from tumortwin.cli import FAILED, OK, Arguments
from tumortwin.cli_questions import print_table
from tumortwin.config import ConfigError, compose, unknown
from tumortwin.io import DataSource, fetch_data, find_data_root, locate_data, read_registry, verify_data

ACTIONS = {"list": False, "path": True, "verify": False, "fetch": True}  # whether a name is needed
_CONVERTED = (
    "A converted file is made from the upstream one (see its notes): the bytes of another conversion differ with the "
    "compression, the data type and the order of the rows, and may still hold the same numbers."
)


def answer(arguments: Arguments) -> int:
    """`data list`, `data path NAME`, `data verify [NAME]` or `data fetch NAME`; returns the exit code.

    **Raises:** `ConfigError` for an action or a name that is not there, `InputError` for data that is not there.
    """
    action, *names = arguments.names or ["list"]
    if action not in ACTIONS:
        raise unknown("action of data", action, ACTIONS)
    entries = read_registry()
    for name in names:
        if name not in entries:
            raise unknown("public data set", name, entries)
    if ACTIONS[action] and not names:
        raise ConfigError(
            f"required: the name of a public data set after data {action}\nreceived: nothing\n"
            "try:      `tumortwin data list` for the names"
        )
    configured = compose(["task=twin", *arguments.overrides], config_dirs=arguments.config_dirs).config.data.root
    chosen = [entries[name] for name in names] or list(entries.values())
    if action == "list":
        return _list(chosen, _root(configured))
    if action == "path":
        return _path(chosen[0], find_data_root(configured) if _needs_root(chosen[0]) else None)
    if action == "verify":
        return _verify(chosen, find_data_root(configured), named=bool(names))
    return _fetch(chosen[0], configured)


def _root(configured: str | None) -> Path | None:
    """The data root, None where there is none; one that was asked for must exist."""
    try:
        return find_data_root(configured)
    except InputError:
        if configured is not None:
            raise
        return None


def _needs_root(source: DataSource) -> bool:
    return any(file.path is not None for file in source.files)


def _list(sources: list[DataSource], root: Path | None) -> int:
    rows = []
    for source in sources:
        count = sum(locate_data(file, root) is not None for file in source.files)
        state = "present" if count == len(source.files) else f"{count} of {len(source.files)}" if count else "absent"
        can = sum(file.url is not None for file in source.files)
        fetchable = "-" if not can else "yes" if can == len(source.files) else f"{can} of {len(source.files)}"
        rows.append([source.name, state, fetchable, source.licence, source.used_by])
    print(f"data.root: {root or 'none found'}")
    print_table(None, ["name", "here", "fetch", "licence", "used by"], rows)
    return OK


def _path(source: DataSource, root: Path | None) -> int:
    for file in source.files:
        if (path := locate_data(file, root)) is not None:
            print(path.parent)
            return OK
    raise _absent(source, root)


def _verify(sources: list[DataSource], root: Path, *, named: bool) -> int:
    different: list[bool] = []
    for source in sources:
        states = verify_data(source, root)
        if named and all(state == "absent" for _, state in states):
            raise _absent(source, root)
        for file, state in states:
            note = " (converted)" if file.converted and state == "different" else ""
            print(f"{state:10} {source.name}: {file.name}{note}")
            different += [file.converted] if state == "different" else []
    if any(different):
        print(_CONVERTED)
    return FAILED if different else OK


def _fetch(source: DataSource, configured: str | None) -> int:
    print(f"{source.name}: {source.title}\nlicence:  {source.licence}\nsource:   {source.source}")
    print(f"citation: {source.citation}")
    root = _root(configured)
    if configured is not None and any(state != "ok" for _, state in verify_data(source, root)):
        raise InputError(
            file=None if root is None else root / source.folder,
            required=f"the registered files of {source.name} in data.root, which is never downloaded into",
            received=", ".join(f"{state}: {file.name}" for file, state in verify_data(source, root) if state != "ok"),
            advice=f"`tumortwin data fetch {source.name}` without data.root downloads into the user's cache",
        )
    paths = fetch_data(source, have=root)
    for path in paths:
        print(path)
    if left := len(source.files) - len(paths):
        print(f"{left} of {len(source.files)} files cannot be downloaded as they are: {source.notes}")
    return OK


def _absent(source: DataSource, root: Path | None) -> InputError:
    return InputError(
        file=None if root is None else root / source.folder,
        required=f"the files of {source.name}",
        received="none of them",
        advice=f"`tumortwin data fetch {source.name}`, or data.root=DIR",
    )
