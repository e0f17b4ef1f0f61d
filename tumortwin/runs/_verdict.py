"""A measured number beside its target, and whether it was met."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One line of `tumortwin reproduce`: `verdict NAME VALUE UNIT target TARGET ok|missed`.

    `unit` "1" for a pure number; `target` in words such as `<= 0.018`, None when nothing was promised; `source` says
    where the target comes from. Make one with `at_most`, `at_least`, `between` or `measured`.
    """

    name: str
    value: float
    unit: str = "1"
    target: str | None = None
    ok: bool = True
    source: str | None = None

    def line(self) -> str:
        """The line that is printed: a verdict, or what was measured without a target."""
        name, unit = self.name.replace(" ", "_"), (self.unit or "1").replace(" ", "_")
        if self.target is None:
            return f"measured {name} {self.value:.6g} {unit}{'' if self.ok else ' missed'}"
        outcome = "ok" if self.ok else "missed"
        return f"verdict {name} {self.value:.6g} {unit} target {self.target} {outcome}"

    def result(self) -> dict[str, Any]:
        """The entry of results.json."""
        return {f: getattr(self, f) for f in ("name", "value", "unit", "target", "source")}


def at_most(name: str, value: Any, limit: float, unit: str = "1", source: str | None = None) -> Verdict:
    """Met when `value <= limit`; NaN misses."""
    return Verdict(name, float(value), unit, f"<= {limit:g}", float(value) <= limit, source)


def at_least(name: str, value: Any, limit: float, unit: str = "1", source: str | None = None) -> Verdict:
    """Met when `value >= limit`; NaN misses."""
    return Verdict(name, float(value), unit, f">= {limit:g}", float(value) >= limit, source)


def between(name: str, value: Any, low: float, high: float, unit: str = "1", source: str | None = None) -> Verdict:
    """Met when `low <= value <= high`; NaN misses."""
    return Verdict(name, float(value), unit, f"{low:g}..{high:g}", low <= float(value) <= high, source)


def measured(name: str, value: Any, unit: str = "1", source: str | None = None) -> Verdict:
    """A number without a target: printed as it is; it misses only when it is no number."""
    return Verdict(name, float(value), unit, None, not math.isnan(float(value)), source)
