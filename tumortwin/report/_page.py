"""A page: what the template needs, whatever the report is about."""

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from tumortwin._files import atomic_path
from tumortwin.report._style import Picture
from tumortwin.report._words import DISCLAIMER

TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """`kicker`, `title` and `question` at the top; the `answer` in words; a few numbers; the `key` figure; sections."""

    kicker: str
    title: str
    question: str
    answer: Any
    headlines: Sequence[Any]
    key: Picture | None
    sections: Sequence[Any]


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}"


def html(page: Page) -> str:
    """The page as one file: pictures are embedded, nothing is fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("report.html.j2").render(page=page, disclaimer=DISCLAIMER)


def write_page(page: Page, folder: Path) -> Path:
    """`folder/report.html` and `folder/figures/*.png`; the page comes last."""
    text = html(page).encode("utf-8")
    key = [page.key] if page.key else []
    pictures = {p.name: p for p in [*key, *(p for s in page.sections for p in s.pictures)]}
    for name, picture in pictures.items():
        with atomic_path(folder / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(picture.png)
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_bytes(text)
    return folder / "report.html"
