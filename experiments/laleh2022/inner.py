"""Development, without the hidden readings: `python -m experiments.laleh2022.inner DATA_ROOT OUTPUT_ROOT`.

Writes the table without the last two readings of every patient who has six or more, as a folder of the same layout;
`tumortwin reproduce laleh2022 data.root=OUTPUT_ROOT` then does everything on what is left. The model was chosen there.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

from experiments.laleh2022.study import HIDDEN, LEAST

FOLDER, FILE, SUBJECT, DAY = "laleh2022_lesions", "lesions.csv", "Pt_hashID", "T_days"


def cut(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without the hidden ones (rows that repeat another one in every column count once)."""
    days: dict[str, list[float]] = defaultdict(list)
    seen = set()
    for row in rows:
        if (whole := tuple(row.values())) not in seen:
            seen.add(whole)
            days[row[SUBJECT]].append(float(row[DAY]))
    first = {s: sorted(d)[-HIDDEN] if len(d) >= LEAST else float("inf") for s, d in days.items()}
    return [row for row in rows if float(row[DAY]) < first[row[SUBJECT]]]


def main(source: str, target: str) -> None:
    """Reads, cuts, writes."""
    with open(Path(source, FOLDER, FILE), newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        rows, names = list(reader), reader.fieldnames or []
    output = Path(target, FOLDER, FILE)
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, names)
        writer.writeheader()
        writer.writerows(cut(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
