"""One self-contained page and its pictures, written so that a reader never sees half a file."""

import base64
import os
import tempfile
from pathlib import Path

import jinja2

from tumortwin.report._data import ReportData
from tumortwin.report._sections import Section, build, headlines
from tumortwin.report._sentences import answer
from tumortwin.report._style import Picture
from tumortwin.report._words import DISCLAIMER

TEMPLATES = Path(__file__).parent / "templates"


def write_atomically(path: Path, content: bytes) -> None:
    """`content` at `path`, by a temporary file in the same folder and a rename; nothing is left behind on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}"


def _html(data: ReportData, sections: list[Section], key: Picture | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("report.html.j2").render(
        data=data,
        sections=sections,
        key=key,
        answer=answer(data),
        headlines=headlines(data),
        disclaimer=DISCLAIMER,
    )


def write_report(data: ReportData, folder: Path | str) -> Path:
    """Write `folder/report.html` and `folder/figures/*.png`; the page embeds its pictures and needs no network.

    Everything is computed before the first byte is written, and the page comes last.

    **Arguments:** `data` the report's contents; `folder` made when missing.

    **Returns:** the path of the page.

    **Raises:** `ValueError` from the parts of `ReportData`; `OSError` when the folder cannot be written.
    """
    folder = Path(folder)
    sections, key = build(data)
    page = _html(data, sections, key).encode("utf-8")
    pictures = {p.name: p for p in [*([key] if key else []), *(p for s in sections for p in s.pictures)]}
    for name, picture in pictures.items():
        write_atomically(folder / "figures" / f"{name}.png", picture.png)
    write_atomically(folder / "report.html", page)
    return folder / "report.html"
