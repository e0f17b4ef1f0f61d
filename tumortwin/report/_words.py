"""Numbers into plain words: rounding, units, intervals, and the names of scores and checks."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tumortwin.metrics import quantile
from tumortwin.report._data import Score
from tumortwin.units import MM3_PER_ML

DISCLAIMER = "Research software, not a medical device."
K_HAT_LIMIT, ESS_LIMIT, R_HAT_LIMIT = 0.7, 400.0, 1.01


def number(value: float | int | None, *, like: float | None = None) -> str:
    """Three significant digits without exponent; `like` sets the number of decimals by another value."""
    if value is None or not math.isfinite(value):
        return "not defined"
    scale = abs(value if like is None else like)
    decimals = 0 if scale >= 100 else 2 if scale == 0 else 2 - math.floor(math.log10(scale))
    if decimals > 6:
        return f"{value:.2e}"
    text = f"{value:.{max(0, decimals)}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) != 0 else text.lstrip("-")


def interval(low: float, high: float, *, like: float | None = None) -> str:
    """`8.1–17.9`, or `−0.2 to 1.4` when a sign is in the way."""
    scale = max(abs(low), abs(high)) if like is None else like
    ends = [number(v, like=scale) for v in (low, high)]
    return "\N{EN DASH}".join(ends) if low >= 0 else " to ".join(ends)


def ml(volume_mm3: float) -> float:
    """mm^3 to mL."""
    return volume_mm3 / MM3_PER_ML


def estimate(median: float, low: float, high: float, unit: str) -> str:
    """`12.3 mL (95 % prediction interval 8.1–17.9)`."""
    return f"{number(median, like=high)} {unit} (95 % prediction interval {interval(low, high)})".replace("  ", " ")


def shown(unit: str) -> tuple[float, str]:
    """Factor and unit in which a canonical unit is printed: volumes in mL, everything else as it is."""
    return (1.0 / MM3_PER_ML, "mL") if unit == "mm^3" else (1.0, unit)


def pretty_unit(unit: str) -> str:
    """`mm^2/day` with a real superscript."""
    return "" if unit == "1" else unit.replace("^2", "²").replace("^3", "³")


def percent(share: float) -> str:
    """Whole percent, never a false 0 or 100."""
    if 0 < share < 0.005:
        return "less than 1 %"
    return "more than 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def upper_first(text: str) -> str:
    """First letter up, the others as they are."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """First letter up, full stop at the end."""
    text = text.strip()
    return text if not text else upper_first(text) + ("" if text[-1] in ".!?" else ".")


def statements(text: str, labels: Mapping[str, str]) -> list[str]:
    """The sentences of an identifiability statement, one a paragraph, with each path by its `labels`' words.

    A statement names a parameter by its path or the last two words of it; the entry `[3]` of a vector stays. Inside a
    product or a power a label of several words stands in brackets.
    """
    plain = {end: label for path, label in labels.items() for end in (path, ".".join(path.split(".")[-2:]))}
    if plain:
        names = "|".join(re.escape(name) for name in sorted(plain, key=len, reverse=True))
        pattern = rf"(?P<times>[*/] )?(?<![\w.])(?P<name>{names})(?![\w]|\.\w)(?P<power>\^| [*/])?"
        text = re.sub(pattern, lambda match: _labelled(match, plain), text)
    return [sentence(part) for part in re.split(r"(?<=\.) (?=[A-Z])", text)]


def _labelled(match: re.Match[str], plain: Mapping[str, str]) -> str:
    before, label, after = match["times"] or "", plain[match["name"]], match["power"] or ""
    return f"{before}({label}){after}" if (before or after) and " " in label else f"{before}{label}{after}"


def listing(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def days(value: float) -> str:
    """`30 days`, `1 day`."""
    text = f"{value:g}"
    return f"{text} day" if text == "1" else f"{text} days"


def with_unit(name: str, unit: str) -> str:
    """`volume, mL`, or the name alone when there is no unit."""
    return f"{name}, {unit}" if unit else name


def median_interval(median: float, low: float, high: float) -> str:
    """`12.3 (8.1–17.9)`, all with the same number of decimals."""
    scale = max(abs(low), abs(high))
    return f"{number(median, like=scale)} ({interval(low, high)})"


METRICS = {
    # name: (label, unit, direction: +1 higher is better, -1 lower is better, 0 not ranked)
    "dice": ("Overlap (Dice)", "", 1),
    "hd95": ("Edge distance (HD95)", "mm", -1),
    "ccc": ("Volume agreement (CCC)", "", 1),
    "crps": ("Volume error (CRPS)", "mL", -1),
    "coverage": ("Coverage of the 95 % interval", "", 0),
}


def metric_value(score: Score) -> float | None:
    """The score in the unit in which it is printed (CRPS in mL); infinite for a distance to an empty outline."""
    if score.value is None or math.isnan(score.value):
        return None
    return ml(float(score.value)) if score.metric == "crps" else float(score.value)


def score_words(value: float | None, *, like: float | None = None, unit: str = "", tumor_seen: bool = True) -> str:
    """A score in words. An infinite distance has no number: one of the two outlines was empty."""
    if value is not None and math.isinf(value):
        return "no tumor forecast" if tumor_seen else "tumor forecast, none seen"
    return f"{number(value, like=like)} {unit}".strip()


def judge(name: str, value: float | int | None) -> tuple[str, bool | None]:
    """What a diagnostic should be, and whether it is (None: not judged)."""
    key = name.lower().replace("-", "_").replace("khat", "k_hat").replace("rhat", "r_hat")
    if key in FLAGS:
        return "yes", bool(value == 1)
    if value is None:
        return "a number", False if key in DIAGNOSTIC_LABELS else None
    if key in ("k_hat", "pareto_k"):
        return f"below {K_HAT_LIMIT}", bool(value < K_HAT_LIMIT)
    if key == "r_hat":
        return f"below {R_HAT_LIMIT}", bool(value < R_HAT_LIMIT)
    if key == "ess":
        return f"above {ESS_LIMIT:.0f}", bool(value > ESS_LIMIT)
    return ("0", bool(value == 0)) if key in ("divergences", "failed_solves") else ("", None)


FLAGS = ("map_converged", "at_mode", "sample_reliable")


DIAGNOSTIC_LABELS = {
    "k_hat": "Pareto k-hat",
    "r_hat": "R-hat",
    "ess": "Effective sample size",
    "divergences": "Divergent transitions",
    "failed_solves": "Number of failed solves",
    "map_converged": "Search for the most probable values converged",
    "at_mode": "Gaussian approximation sits at the most probable values",
    "sample_reliable": "Importance sample reliable",
}


def diagnostic_words(name: str, value: float | int | None) -> str:
    """The value of a diagnostic: yes or no for a flag, a number for the others."""
    return ("yes" if value == 1 else "no") if name in FLAGS else number(value)


def summarize(draws: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float, float]:
    """Median and central 95 % interval of (weighted) draws."""
    low, median, high = quantile(draws, np.array([0.025, 0.5, 0.975]), weights)
    return float(median), float(low), float(high)


def unique(items: Iterable[str]) -> list[str]:
    """In order, each once."""
    return list(dict.fromkeys(items))
