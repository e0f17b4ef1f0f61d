"""One self-contained page and its pictures, written so that a reader never sees half a file."""

import base64
from pathlib import Path

import jinja2

from tumortwin._files import atomic_path
from tumortwin.report._data import ReportData
from tumortwin.report._sections import Section, build, headlines
from tumortwin.report._sentences import answer
from tumortwin.report._style import Picture
from tumortwin.report._words import DISCLAIMER

TEMPLATES = Path(__file__).parent / "templates"


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

    **Raises:** `ValueError` from the parts of `ReportData`; `OSError` when the folder cannot be written;
    `InputError` when the disk is full.
    """
    folder = Path(folder)
    sections, key = build(data)
    page = _html(data, sections, key).encode("utf-8")
    pictures = {p.name: p for p in [*([key] if key else []), *(p for s in sections for p in s.pictures)]}
    for name, picture in pictures.items():
        with atomic_path(folder / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(picture.png)
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_bytes(page)
    return folder / "report.html"
