"""What a reader must know before believing a number."""

import dataclasses
from typing import Any

TIERS = ("experimental", "pilot", "early", "validated")


@dataclasses.dataclass(frozen=True)
class ReplayCard:
    """The card of a replay: who was forecast, how the future was hidden, against what, and where it does not hold.

    `cohort` in words with `subjects` and `cases`; `split`: how known and hidden were told apart; `site_split`: whether
    sites, scanners or batches were kept apart (or why not); `comparators`: every baseline and published number;
    `looks`: how often the hidden part was looked at before the numbers were final; `limits`; `tier`: the maturity.

    **Raises:** `ValueError` that names the field when one is empty.

    **Reference:** Collins et al., BMJ 385 (2024) e078378 (TRIPOD+AI), items on data, outcome and limitations.
    """

    name: str
    cohort: str
    subjects: int
    cases: int
    split: str
    site_split: str
    comparators: tuple[str, ...]
    looks: str
    limits: tuple[str, ...]
    tier: str = "experimental"
    source: str = ""

    def __post_init__(self) -> None:
        empty = [f.name for f in dataclasses.fields(self) if f.name != "source" and not getattr(self, f.name)]
        if empty:
            raise ValueError(f"required: every field of a card; received nothing for: {', '.join(empty)}")
        if self.tier not in TIERS:
            raise ValueError(f"required: a tier among {', '.join(TIERS)}; received: {self.tier!r}")

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}
