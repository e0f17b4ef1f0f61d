"""Where compiled programs are kept: the configuration's folder, else the environment's, else the user's."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from tumortwin._paths import user_cache
from tumortwin.runs import configure_backend

FOLDER = "jax_compilation_cache_dir"
NAME = "JAX_COMPILATION_CACHE_DIR"


def _value(name: str) -> Any:
    return getattr(jax.config, name)


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before, seconds = _value(FOLDER), _value("jax_persistent_cache_min_compile_time_secs")
    monkeypatch.setenv(NAME, os.environ.get(NAME, ""))
    yield
    jax.config.update(FOLDER, before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def test_the_configured_folder_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, str(tmp_path / "environment"))
    configure_backend(tmp_path / "configured")
    assert _value(FOLDER) == str(tmp_path / "configured")
    assert os.environ[NAME] == str(tmp_path / "configured")  # what child processes will use


def test_without_a_configured_folder_the_environment_and_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, str(tmp_path / "environment"))
    configure_backend()
    assert _value(FOLDER) == str(tmp_path / "environment")
    monkeypatch.delenv(NAME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    configure_backend()
    assert _value(FOLDER) == str(user_cache() / "jax") == str(tmp_path / "home/tumortwin/jax")


def test_a_folder_that_cannot_be_made_is_left_alone(tmp_path: Path) -> None:
    before = _value(FOLDER)
    (tmp_path / "file").write_text("in the way")
    configure_backend(tmp_path / "file" / "cache")
    assert _value(FOLDER) == before
