"""What makes two runs the same run: their configuration and their data, not their time or place."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tumortwin import __version__
from tumortwin._errors import InputError
from tumortwin.runs._json import plain, read_json

PLACE_AND_MANNER = ("cluster", "paths", "data.root", "runtime.progress", "runtime.resume", "runtime.lock_wait")
"""Parts of a configuration that change where and how a run goes, never what comes out."""

PACKAGE = Path(__file__).resolve().parents[1]
_BLOCK = 1 << 20


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value."""
    text = json.dumps(plain(value), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    state = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while block := handle.read(_BLOCK):
                state.update(block)
    except OSError as error:
        raise InputError(
            file=path,
            required="a readable data file",
            received=f"{error.strerror or error}",
            advice="check the path and data.root; `tumortwin doctor` shows where data is looked for",
        ) from error
    return state.hexdigest()


def hash_files(files: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """{path: SHA-256} of data files."""
    return {str(file): file_digest(file) for file in sorted(map(Path, files))}


def code_digest(package: Path = PACKAGE) -> str:
    """SHA-256 of the sources of this package: results of other code are other results."""
    files = sorted(package.rglob("*.py"))
    return digest([(file.relative_to(package).as_posix(), file_digest(file)) for file in files])


def run_directory(path: str | os.PathLike[str]) -> Path:
    """`path` when it is a run directory, else `InputError`."""
    directory = Path(path).expanduser()
    if not (directory / "provenance.json").is_file():
        raise InputError(
            file=directory,
            required="a run directory (it holds provenance.json)",
            received="no such folder" if not directory.is_dir() else "a folder without provenance.json",
            advice="`tumortwin runs` lists the runs there are",
        )
    return directory


def config_of(path: str | os.PathLike[str]) -> DictConfig:
    """The configuration that a run was made with."""
    loaded = OmegaConf.load(run_directory(path) / ".hydra" / "config.yaml")
    return OmegaConf.create(OmegaConf.to_container(loaded))  # type: ignore[return-value]


def overrides_of(path: str | os.PathLike[str]) -> list[str]:
    """The overrides that a run was started with."""
    file = run_directory(path) / ".hydra" / "overrides.yaml"
    return [str(x) for x in OmegaConf.load(file)] if file.is_file() else []


def _places(files: Iterable[str]) -> list[str]:
    """What tells the files apart wherever their folder lies: the name, and for files of one name the path within the
    folder that holds them all. A moved data folder is the same data; two visits whose files changed places are not.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    folders: dict[str, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.name, []).append(path.parent)
    common = {name: os.path.commonpath(parents) for name, parents in folders.items()}
    return [Path(os.path.relpath(path, common[path.name])).as_posix() for path in paths]


def identity_of(config: DictConfig, data: Mapping[str, str]) -> str:
    """The hash of a configuration (without place and manner), its data, the run it starts from, and the code."""
    stripped = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    for key in PLACE_AND_MANNER:
        if OmegaConf.select(stripped, key) is not None:
            OmegaConf.update(stripped, key, None)
    earlier = OmegaConf.select(stripped, "run")
    contents = sorted((place, sha) for place, sha in zip(_places(data), data.values(), strict=True))
    content: dict[str, Any] = {"data": contents, "version": __version__, "code": code_digest()}
    if earlier:
        content["run"] = read_json(run_directory(earlier) / "provenance.json").get("identity")
        stripped.run = None
    content["config"] = OmegaConf.to_container(stripped)
    return digest(content)
