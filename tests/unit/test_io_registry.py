"""The registry of public data and the verb `data`: what is said, what is refused, what is downloaded. No network."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tumortwin import cli
from tumortwin._errors import InputError
from tumortwin.cli import main
from tumortwin.io import _registry as registry_room
from tumortwin.io import data_source, fetch_data, locate_data, read_registry, verify_data

GOOD, BAD = b"ID,Time\n1,2\n", b"something else\n"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Address and folder of a web server on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}", folder
        web.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Path]) -> Path:
    """A registry of three entries in place of the shipped one; a data root `data` with the first of them."""
    address, web = server
    (web / "a.csv").write_bytes(GOOD)
    (web / "wrong.csv").write_bytes(BAD)
    common = {"source": "https://github.com/someone/study", "commit": "a" * 40, "citation": "A (2020)", "used_by": "-"}
    entries = {
        "mice": {
            **common,
            "title": "Mice",
            "licence": "CC0 1.0",
            "files": [{"path": "mice/a.csv", "upstream": "x/a.csv", "url": f"{address}/a.csv", "sha256": digest(GOOD)}],
        },
        "wrong": {
            **common,
            "title": "Wrong bytes",
            "licence": "MIT",
            "files": [{"path": "wrong/w.csv", "url": f"{address}/wrong.csv", "sha256": digest(GOOD)}],
        },
        "made": {
            **common,
            "title": "Made from another",
            "licence": "none stated",
            "converted": True,
            "notes": "Converted: stacked.",
            "files": [{"path": "made/m.csv", "upstream": "raw.xlsx", "sha256": digest(GOOD)}],
        },
    }
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "registry.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
    monkeypatch.setattr(registry_room, "shipped", lambda folder: shipped)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TUMORTWIN_DATA", raising=False)
    root = tmp_path / "data"
    for name in ("mice/a.csv", "made/m.csv"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(GOOD)
    return root


def test_the_shipped_registry_is_whole() -> None:
    entries = read_registry()
    assert len(entries) == 20
    for source in entries.values():
        assert source.files and source.title and source.licence and source.citation, source.name
        assert source.source.startswith(("https://github.com/", "nilearn", "derived from")), source.name
        for file in source.files:
            assert len(file.sha256) == 64 and int(file.sha256, 16) >= 0
            assert not (file.converted and file.url), file.name
            assert file.path is None or file.path.startswith(f"{source.folder}/")
        assert not any(f.converted for f in source.files) or source.notes, f"{source.name}: how was it converted?"
    paths = [file.path for source in entries.values() for file in source.files if file.path]
    assert len(set(paths)) == len(paths)


def test_an_address_is_the_file_at_its_commit() -> None:
    (file,) = data_source("benzekry_llc_173").files
    assert file.url == (
        "https://raw.githubusercontent.com/lvkunz/OncoAMBER/898cfc8a4d1a737cc35cd86dbf69f25c86023388/LLC_sc_CCSB.csv"
    )
    assert [f.url for f in data_source("icbm152").files] == [None] * 3
    assert [f.url for f in data_source("laleh2022_lesions").files] == [None]


def test_the_maps_of_the_atlas_are_found_in_their_package() -> None:
    assert [state for _, state in verify_data(data_source("icbm152"), None)] == ["ok"] * 3


def test_a_name_that_is_not_there_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="'benzekry_llc_173'"):
        data_source("benzekry_llc_174")


@pytest.mark.parametrize("text", ["- a\n", "a: {title: b}\n", "a: [\n", ""])
def test_a_file_that_is_no_registry(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match="registry"):
        read_registry(tmp_path / "r.yaml")
    with pytest.raises(InputError, match="registry"):
        read_registry(tmp_path / "none.yaml")


def test_files_are_verified_by_their_bytes(place: Path) -> None:
    source = data_source("mice")
    assert [state for _, state in verify_data(source, place)] == ["ok"]
    (place / "mice" / "a.csv").write_bytes(GOOD + b" ")
    assert [state for _, state in verify_data(source, place)] == ["different"]
    assert [state for _, state in verify_data(source, place / "nowhere")] == ["absent"]
    assert locate_data(source.files[0], place / "mice") == place / "mice" / "a.csv"


def test_a_file_is_downloaded_once_and_kept_only_if_it_is_the_right_one(
    place: Path, server: tuple[str, Path], tmp_path: Path
) -> None:
    (path,) = fetch_data(data_source("mice"), tmp_path / "mine")
    assert path == tmp_path / "mine" / "mice" / "a.csv" and path.read_bytes() == GOOD
    (server[1] / "a.csv").unlink()
    assert fetch_data(data_source("mice"), tmp_path / "mine") == [path]
    assert fetch_data(data_source("mice"), tmp_path / "new", have=place) == [place / "mice" / "a.csv"]
    with pytest.raises(InputError, match="network"):
        fetch_data(data_source("mice"), tmp_path / "new")
    with pytest.raises(InputError, match="registered bytes"):
        fetch_data(data_source("wrong"), tmp_path / "mine")
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.read_bytes() == BAD]
    assert left == [server[1] / "wrong.csv"]


def test_what_must_be_converted_is_not_downloaded(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Converted: stacked") as caught:
        fetch_data(data_source("made"), tmp_path / "mine")
    assert "github.com/someone/study at commit aaaa" in str(caught.value)


def test_the_verb_lists_and_finds(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["data"], ["data", "list"]):
        assert main([*words, f"data.root={place}"]) == cli.OK
        lines = capsys.readouterr().out.splitlines()
        assert str(place) in lines[0]
        found = {line.split()[0]: line.split()[1:3] for line in lines[2:]}
        assert found == {"mice": ["present", "yes"], "wrong": ["absent", "yes"], "made": ["present", "-"]}
        assert any("CC0 1.0" in line for line in lines)
    assert main(["data", "path", "mice", f"data.root={place}"]) == cli.OK
    assert capsys.readouterr().out.strip() == str(place / "mice")
    assert main(["data", "path", "wrong", f"data.root={place}"]) == cli.BAD_INPUT
    assert "tumortwin data fetch wrong" in capsys.readouterr().err


def test_the_verb_verifies(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", f"data.root={place}"]) == cli.OK
    out = capsys.readouterr().out
    assert "ok         mice: mice/a.csv" in out and "absent     wrong: wrong/w.csv" in out
    assert "another conversion" not in out
    (place / "made" / "m.csv").write_bytes(BAD)
    assert main(["data", "verify", f"data.root={place}"]) == cli.FAILED
    out = capsys.readouterr().out
    assert "different  made: made/m.csv (converted)" in out and "another conversion" in out
    assert main(["data", "verify", "mice", f"data.root={place}"]) == cli.OK
    (place / "mice" / "a.csv").write_bytes(BAD)
    assert main(["data", "verify", "mice", f"data.root={place}"]) == cli.FAILED
    out = capsys.readouterr().out
    assert "different  mice: mice/a.csv" in out and "another conversion" not in out
    assert main(["data", "verify", "wrong", f"data.root={place}"]) == cli.BAD_INPUT


def test_the_verb_fetches_into_the_cache_after_the_licence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TUMORTWIN_DATA", str(tmp_path / "empty"))
    assert main(["data", "fetch", "mice"]) == cli.OK
    kept = tmp_path / "cache" / "tumortwin" / "mice" / "a.csv"
    out = capsys.readouterr().out
    assert kept.read_bytes() == GOOD
    assert out.index("CC0 1.0") < out.index(str(kept))
    assert main(["data", "fetch", "wrong"]) == cli.BAD_INPUT
    assert main(["data", "fetch", "made"]) == cli.BAD_INPUT
    assert "Converted: stacked" in capsys.readouterr().err


def test_with_a_folder_of_ones_own_nothing_is_downloaded(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry_room, "_download", lambda *_: pytest.fail("the network was used"))
    assert main(["data", "fetch", "mice", f"data.root={place}"]) == cli.OK
    assert str(place / "mice" / "a.csv") in capsys.readouterr().out
    assert main(["data", "fetch", "wrong", f"data.root={place}"]) == cli.BAD_INPUT
    assert "absent: wrong/w.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("data lst", cli.BAD_CONFIG, ["lst", "list"]),
        ("data path", cli.BAD_CONFIG, ["name of a public data set"]),
        ("data fetch", cli.BAD_CONFIG, ["name of a public data set"]),
        ("data path mic", cli.BAD_CONFIG, ["mic", "mice"]),
        ("data path mice twice", cli.BAD_CONFIG, ["'twice'"]),
        ("data list data.rot=x", cli.BAD_CONFIG, ["data.rot", "data.root"]),
        ("data list data.root=nowhere", cli.BAD_INPUT, ["nowhere"]),
        ("data verify data.root=nowhere", cli.BAD_INPUT, ["nowhere", "tumortwin data list"]),
    ],
)
def test_mistakes_of_the_verb(
    place: Path, capsys: pytest.CaptureFixture[str], line: str, code: int, words: list[str]
) -> None:
    assert main(line.split()) == code
    err = capsys.readouterr().err
    for word in (*words, "required:", "received:", "try:"):
        assert word in err
