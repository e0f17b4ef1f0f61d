"""The registry of public data: where each file comes from, under what licence, and whether a copy is the right one."""

import dataclasses
import difflib
import hashlib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tumortwin._errors import InputError
from tumortwin._files import disk_full
from tumortwin._paths import shipped, user_cache
from tumortwin.io._atlas import atlas_files

FILE = "registry.yaml"
OK, DIFFERENT, ABSENT = "ok", "different", "absent"
_GITHUB = re.compile(r"https://github\.com/(?P<owner>[\w.-]+)/(?P<repository>[\w.-]+)")
_RAW = "https://raw.githubusercontent.com"
_BLOCK = 1 << 20  # bytes read at once


@dataclasses.dataclass(frozen=True)
class RegisteredFile:
    """`path` under the data root (None: inside the installed nilearn package, under the name `upstream`).

    `converted`: made from `upstream`; `url`: where the very bytes are to be had, None when they are not.
    """

    path: str | None
    upstream: str | None
    sha256: str
    converted: bool
    url: str | None

    @property
    def name(self) -> str:
        """What to call the file in a message."""
        return self.path or self.upstream or self.sha256


@dataclasses.dataclass(frozen=True)
class DataSource:
    """One entry of the registry. `folder`: its folder under the data root."""

    name: str
    title: str
    source: str
    commit: str | None
    licence: str
    citation: str
    used_by: str
    notes: str
    folder: str
    files: tuple[RegisteredFile, ...]


def read_registry(path: str | os.PathLike[str] | None = None) -> dict[str, DataSource]:
    """The entries by name, of the registry that ships with the package or of the file at `path`.

    **Raises:** `InputError` for a file that is missing, or no registry.
    """
    import yaml

    file = shipped("data") / FILE if path is None else Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {str(name): _entry(str(name), node) for name, node in content.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            file=file,
            required="the registry of public data: entries with source, licence, citation and files",
            received=f"{type(error).__name__}: {error}",
            advice="data/registry.yaml of the repository shows the form",
        ) from None


def data_source(name: str) -> DataSource:
    """One entry. **Raises:** `InputError` for a name that is not there; the nearest are offered."""
    entries = read_registry()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
        raise InputError(
            file=None,
            required=f"a public data set: {', '.join(entries)}",
            received=repr(name),
            advice=f"did you mean {' or '.join(map(repr, near))}?" if near else "`tumortwin data list`",
        )
    return entries[name]


def locate_data(file: RegisteredFile, root: str | os.PathLike[str] | None) -> Path | None:
    """The copy of a file under `root` (its path there, or its name), in the nilearn package, or None."""
    if file.path is None:
        candidates: Iterable[Path] = (p for p in atlas_files() if p.name == file.upstream)
    else:
        candidates = () if root is None else (Path(root) / file.path, Path(root) / Path(file.path).name)
    return next((path for path in candidates if path.is_file()), None)


def verify_data(source: DataSource, root: str | os.PathLike[str] | None) -> list[tuple[RegisteredFile, str]]:
    """Each file of an entry with `ok`, `different` (another SHA-256) or `absent`."""
    found = []
    for file in source.files:
        path = locate_data(file, root)
        state = ABSENT if path is None else OK if file_digest(path) == file.sha256 else DIFFERENT
        found.append((file, state))
    return found


def fetch_data(
    source: DataSource, folder: str | os.PathLike[str] | None = None, *, have: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Download the files of an entry that can be had as they are into `folder` (None: the user's cache), with pooch.

    Files that are already under `have` (a data root) or `folder`, byte for byte, are not downloaded. Returns the
    paths of all files that were asked for. What was downloaded is kept only if its SHA-256 is the registered one.

    **Raises:** `InputError` when nothing of the entry can be downloaded (and says what to do instead), without a
    network, for bytes that are not the registered ones, a full disk.
    """
    target = user_cache() if folder is None else Path(folder)
    wanted = [file for file in source.files if _there(file, have) is None]
    if wanted and not any(file.url for file in wanted):
        raise InputError(
            file=None,
            required=f"a file of {source.name} that can be downloaded as it is",
            received=f"{len(wanted)} converted or unnamed files; {source.notes or 'no notes'}",
            advice=f"get them from {source.source} at commit {source.commit}, put them into data.root/{source.folder}",
        )
    found = [path for file in source.files if (path := _there(file, have)) is not None]
    return [*found, *(_download(source, file, target) for file in wanted if file.url)]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _there(file: RegisteredFile, root: str | os.PathLike[str] | None) -> Path | None:
    path = locate_data(file, root)
    return path if path is not None and file_digest(path) == file.sha256 else None


def _download(source: DataSource, file: RegisteredFile, target: Path) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    place = target / str(file.path)
    try:
        return Path(
            pooch.retrieve(str(file.url), known_hash=f"sha256:{file.sha256}", fname=place.name, path=place.parent)
        )
    except ValueError as error:
        raise InputError(
            file=place,
            required=f"the registered bytes of {file.name} (SHA-256 {file.sha256})",
            received=f"others from {file.url}",
            advice=f"compare with {source.source} at commit {source.commit}; the file was not kept",
        ) from error
    except OSError as error:
        if (full := disk_full(error, place)) is not None:
            raise full from error
        raise InputError(
            file=None,
            required=f"a network to download {file.url}",
            received=f"{type(error).__name__}: {error}"[:300],
            advice=f"on another machine, then copy it to data.root/{file.path}; data.root=DIR needs no network",
        ) from error


def _entry(name: str, node: Any) -> DataSource:
    commit = node["commit"]
    return DataSource(
        name=name,
        title=str(node["title"]),
        source=str(node["source"]),
        commit=None if commit is None else str(commit),
        licence=str(node["licence"]),
        citation=str(node["citation"]),
        used_by=str(node["used_by"]),
        notes=" ".join(str(node.get("notes") or "").split()),
        folder=str(node.get("folder") or name),
        files=tuple(_file(file, node) for file in node["files"]),
    )


def _file(file: Any, node: Any) -> RegisteredFile:
    converted = bool(file.get("converted", node.get("converted", False)))
    upstream, url = file.get("upstream"), file.get("url")
    github = _GITHUB.match(str(node["source"]))
    if url is None and github and node["commit"] and upstream and file["path"] and not converted:
        url = f"{_RAW}/{github['owner']}/{github['repository']}/{node['commit']}/{upstream}"
    return RegisteredFile(file["path"], upstream, str(file["sha256"]), converted, url)
