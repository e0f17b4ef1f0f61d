"""One self-contained page and its pictures, written so that a reader never sees half a file."""

from pathlib import Path

from tumortwin.report._cohort import CohortReport
from tumortwin.report._cohort_sections import cohort_page
from tumortwin.report._data import ReportData
from tumortwin.report._page import Page, write_page
from tumortwin.report._sections import build, headlines
from tumortwin.report._sentences import answer


def write_report(data: ReportData, folder: Path | str) -> Path:
    """Write `folder/report.html` and `folder/figures/*.png`; the page embeds its pictures and needs no network.

    Everything is computed before the first byte is written, and the page comes last.

    **Arguments:** `data` the report's contents; `folder` made when missing.

    **Returns:** the path of the page.

    **Raises:** `ValueError` from the parts of `ReportData`; `OSError` when the folder cannot be written;
    `InputError` when the disk is full.
    """
    sections, key = build(data)
    kicker = f"Tumor twin report, patient {data.patient.id}{' (simulated)' if data.patient.virtual else ''}"
    return write_page(
        Page(kicker, data.title, data.question, answer(data), headlines(data), key, sections), Path(folder)
    )


def write_cohort_report(data: CohortReport, folder: Path | str) -> Path:
    """The same for many subjects of a table."""
    return write_page(cohort_page(data), Path(folder))
