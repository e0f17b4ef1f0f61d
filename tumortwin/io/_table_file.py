"""A text or Parquet file as rows of words, with the line that each stands on. Nothing is converted here."""

import collections
import csv
import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tumortwin._errors import InputError

SEPARATORS: Mapping[str, str] = MappingProxyType({".csv": ",", ".tsv": "\t", ".txt": "\t"})
PARQUET = (".parquet", ".pq")
_OTHER_SEPARATORS = (",", ";", "\t", "|")


@dataclasses.dataclass(frozen=True)
class Rows:
    """`cells`: column -> words, one a row. `lines`: where each row stands: the line of a text file (the header is 1),
    the row of a Parquet file (the first is 1); `place` is the word for it."""

    path: Path
    cells: Mapping[str, list[str]]
    lines: Sequence[int]
    place: str


def read_rows(path: str | os.PathLike[str], columns: Sequence[str], separator: str | None = None) -> Rows:
    """The named columns of a `.csv`, `.tsv`, `.txt` or `.parquet` file.

    **Raises:** `InputError` for a missing, empty or unreadable file, a name that ends otherwise, a row with too many or
    too few cells, a column named twice, a missing column (the nearest are offered), no rows.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SEPARATORS and suffix not in PARQUET:
        raise InputError(
            file=path,
            required=f"a table whose name ends in {', '.join([*SEPARATORS, PARQUET[0]])}",
            received=f"{suffix or 'no ending'}",
            advice="save it as CSV in UTF-8 (a spreadsheet can)",
        )
    if not path.is_file():
        raise _not_there(path)
    rows = _parquet(path, columns) if suffix in PARQUET else _text(path, columns, separator or SEPARATORS[suffix])
    if not rows.lines:
        raise InputError(
            file=path, required="at least one row", received="a header without rows", advice="check the export"
        )
    return rows


def _text(path: Path, columns: Sequence[str], separator: str) -> Rows:
    records: list[list[str]] = []
    lines: list[int] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=separator, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, columns, separator)
            for record in reader:
                if not any(cell.strip() for cell in record):
                    continue
                if len(record) != len(header):
                    raise _ragged(path, reader.line_num, len(header), len(record))
                records.append(record)
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            file=path,
            required="a text table in UTF-8",
            received=f"{type(error).__name__}: {error}",
            advice="save it again as CSV in UTF-8; check the quotes of the line it names",
        ) from None
    places = {name: header.index(name) for name in columns}
    cells = {name: [record[i].strip() for record in records] for name, i in places.items()}
    return Rows(path, cells, lines, "line")


def _parquet(path: Path, columns: Sequence[str]) -> Rows:
    import pandas as pd

    try:
        frame: Any = pd.read_parquet(path)
    except ImportError:
        raise InputError(
            file=path,
            required="the package pyarrow, which reads Parquet",
            received="it is not installed",
            advice="pip install 'tumortwin[parquet]', or save the table as CSV",
        ) from None
    except Exception as error:
        raise InputError(
            file=path,
            required="a complete Parquet file",
            received=f"{type(error).__name__}: {error}"[:300],
            advice="write the file again",
        ) from None
    _check_header(path, [str(name) for name in frame.columns], columns, None)
    blank = {name: frame[name].isna() for name in columns}
    cells = {
        name: ["" if empty else _word(value) for value, empty in zip(frame[name], blank[name], strict=True)]
        for name in columns
    }
    return Rows(path, cells, range(1, len(frame) + 1), "row")


def _word(value: Any) -> str:
    """A cell that is not blank (null, or the NaN that pandas makes of it), as a text file would hold it."""
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value).strip()


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str], separator: str | None) -> None:
    if not any(header):
        raise InputError(
            file=path, required="a header with the names of the columns", received="an empty file", advice="write one"
        )
    twice = [name for name, count in collections.Counter(header).items() if count > 1 and name in columns]
    if twice:
        raise InputError(
            file=path,
            required=f"one column {twice[0]!r}",
            received=f"{header.count(twice[0])} columns of that name",
            advice="rename or remove the others",
        )
    for name in columns:
        if name not in header:
            raise _no_column(path, name, header, separator)


def _no_column(path: Path, name: str, header: Sequence[str], separator: str | None) -> InputError:
    near = difflib.get_close_matches(name.lower(), [h.lower() for h in header], n=3, cutoff=0.4)
    offered = [h for h in header if h.lower() in near]
    advice = f"did you mean {' or '.join(map(repr, offered))}?" if offered else "declare the column's own name"
    other = [s for s in _OTHER_SEPARATORS if s != separator and len(header) == 1 and s in header[0]]
    if separator is not None and other:
        advice = f"separator: {other[0]!r} in the declaration of the table"
    return InputError(file=path, required=f"a column {name!r}", received=f"columns {', '.join(header)}", advice=advice)


def _ragged(path: Path, line: int, wanted: int, got: int) -> InputError:
    return InputError(
        file=path,
        required=f"line {line}: {wanted} cells, as in the header",
        received=f"{got} cells",
        advice="quote a cell that holds the separator; fill up a row that was cut short",
    )


def _not_there(path: Path) -> InputError:
    near: list[str] = []
    if path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3, cutoff=0.4)
    return InputError(
        file=path,
        required="a table",
        received="a folder" if path.is_dir() else "no such file" if path.parent.is_dir() else "no such folder",
        advice=f"did you mean {' or '.join(map(repr, near))}?" if near else "check the name; case matters",
    )
