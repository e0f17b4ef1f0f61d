"""Calls against outcomes: one table a landmark, its scores, subgroups, and the card."""

import dataclasses
from typing import Any

import numpy as np

from experiments.bruchovsky2006.cycles import PLAIN, Landmarks, plain_features
from experiments.bruchovsky2006.folds import Calls
from tumortwin.io import Table
from tumortwin.metrics import ReplayCard, auc, brier, recalibration, spiegelhalter, wilson
from tumortwin.runs import Verdict, measured


@dataclasses.dataclass(frozen=True)
class Row:
    """One call: who, before which cycle, what was said by whom, and what happened."""

    patient: str
    cycle: int
    relapse: bool
    probability: dict[str, float]
    called: dict[str, bool]


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """The calls of one landmark that can be judged, metastases apart. `probability`, `called`: forecaster -> [case]."""

    name: str
    patient: np.ndarray
    event: np.ndarray
    probability: dict[str, np.ndarray]
    called: dict[str, np.ndarray]
    case: np.ndarray
    rows: tuple[Row, ...]

    def auc(self, forecaster: str) -> float:
        return auc(self.probability[forecaster], self.event)

    def auc_without_shift(self, forecaster: str) -> float:
        """AUC of logit p minus that of the prevalence of the other patients (README.md, "What cannot be said")."""
        logit = lambda p: np.log(p) - np.log1p(-p)  # noqa: E731
        gap = logit(self.probability[forecaster]) - logit(self.probability["prevalence"])
        return auc(np.round(gap, 12), self.event)

    def brier(self, forecaster: str) -> float:
        return brier(self.probability[forecaster], self.event)

    def spiegelhalter(self, forecaster: str) -> float:
        return spiegelhalter(self.probability[forecaster], self.event)

    def verdicts(self, forecaster: str) -> list[Verdict]:
        """All that is printed of one forecaster here; a nowcast says so in its name."""
        stem = f"{self.name}_{forecaster}"
        found = [
            measured(f"auc_{stem}", self.auc(forecaster)),
            measured(f"auc_without_shift_{stem}", self.auc_without_shift(forecaster)),
            measured(f"brier_{stem}", self.brier(forecaster)),
            measured(f"z_{stem}", self.spiegelhalter(forecaster)),
            measured(f"accuracy_{stem}", np.mean(self.called[forecaster] == self.event)),
        ]
        for word, kind in (("sensitivity", self.event), ("specificity", ~self.event)):
            right = (self.called[forecaster] == self.event)[kind]
            share = wilson(int(right.sum()), int(right.size))
            found += [
                measured(f"{word}_{stem}", share.value),
                measured(f"{word}_{stem}_low", share.low),
                measured(f"{word}_{stem}_high", share.high),
            ]
        if forecaster == "prevalence":
            return found
        try:
            line = recalibration(self.probability[forecaster], self.event)
        except ValueError:  # separated: a slope does not exist, and is not printed
            return found
        return [
            *found,
            measured(f"calibration_slope_{stem}", line.slope),
            measured(f"calibration_slope_{stem}_standard_error", line.slope_error),
            measured(f"calibration_intercept_{stem}", line.intercept),
            measured(f"calibration_intercept_{stem}_standard_error", line.intercept_error),
        ]


def prevalence_of(event: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """The share of events among the cases of the other patients: the forecast of the majority class, as a number."""
    return np.asarray([event[patient != p].mean() for p in patient])


def scored(name: str, landmarks: Landmarks, calls: Calls, subjects: tuple[str, ...]) -> Scored:
    """The calls at the landmark `name`: `next` (before each next cycle) or `ever` (end of the first off-phase)."""
    if name == "next":
        use, event = landmarks.judged & ~landmarks.metastasis, landmarks.relapses
        said, cut = calls.probability, calls.threshold
    else:
        use, event = (landmarks.cycle == 2) & ~landmarks.metastasis, landmarks.ever
        said, cut = calls.ever_probability, calls.ever_threshold
    case = np.flatnonzero(use)
    event, patient = event[case], landmarks.patient[case]
    share = prevalence_of(event, patient)
    probability, called = {"prevalence": share}, {"prevalence": share >= 0.5}
    for forecaster, values in said.items():
        if np.isfinite(values[case]).all():
            label = f"{forecaster}_of_the_same_cycle" if forecaster == "nowcast" else forecaster
            probability[label], called[label] = values[case], values[case] >= cut[forecaster][case]
    rows = tuple(
        Row(
            subjects[p],
            int(landmarks.cycle[c]),
            bool(e),
            {k: float(v[i]) for k, v in probability.items()},
            {k: bool(v[i]) for k, v in called.items()},
        )
        for i, (c, p, e) in enumerate(zip(case, patient, event, strict=True))
    )
    return Scored(name, patient, event, probability, called, case, rows)


def subgroups(table: Table, landmarks: Landmarks, tables: dict[str, Scored]) -> list[dict[str, Any]]:
    """How the mechanism fares in parts of the cohort: by trial, number of the next cycle, and first PSA.

    Age and site are not in the file.
    """
    first = plain_features(landmarks.known)[:, PLAIN.index("log first PSA")]
    high = first >= np.median(first)
    found = []
    for name, one in tables.items():
        groups = {
            "trial": np.asarray([str(t) for t in table.covariates["trial"]])[one.patient],
            "next cycle": np.where(landmarks.cycle[one.case] == 2, "2", "3 or later"),
            "first PSA": np.where(high[one.case], "median or above", "below the median"),
        }
        probability = one.probability["mechanism"]
        for group, labels in groups.items():
            for label in np.unique(labels):
                inside = labels == label
                share = wilson(int(one.event[inside].sum()), int(inside.sum()))
                found.append(
                    {
                        "landmark": name,
                        "group": f"{group} = {label}",
                        "patients": np.unique(one.patient[inside]).size,
                        "cases": int(inside.sum()),
                        "relapses": int(one.event[inside].sum()),
                        "observed": share.value,
                        "observed_low": share.low,
                        "observed_high": share.high,
                        "stated": float(probability[inside].mean()),
                        "brier": brier(probability[inside], one.event[inside]),
                        "auc": auc(probability[inside], one.event[inside]) if 0 < share.value < 1 else None,
                    }
                )
    return found


def card_of(table: Table, landmarks: Landmarks, refit: bool) -> ReplayCard:
    """What a reader must know before believing a number."""
    left_out = "refitted without him" if refit else "that of two thirds of the patients, he not among them (quick run)"
    return ReplayCard(
        name="bruchovsky2006",
        cohort="men with biochemical recurrence after radiotherapy under intermittent androgen deprivation",
        subjects=len(table.subjects),
        cases=int(landmarks.judged.sum()),
        split=f"leave one patient out: population {left_out}, link and threshold without him; known: readings up to "
        "and on the last visit of the off-phase",
        site_split="none: the file has no sites",
        comparators=(
            "prevalence of the other patients (majority class)",
            "logistic regression on log nadir, days off, cycle, first PSA",
            "nadir of the last on-phase alone",
            "nowcast: nadir of the same cycle's on-phase (sees the future, no forecast)",
            "Brady-Nicholls et al. 2020: accuracy .89, sensitivity .73, specificity .91",
        ),
        looks="see README.md",
        limits=(
            "few relapses: intervals are wide, and no superiority can be shown",
            "follow-up ends at one calendar date: late entrants had less time to relapse, and `ever` means seen to",
            "relapse is defined on PSA in the on-phase; metastases are not forecast",
            "no age, stage, site or testosterone is used",
        ),
        source="Bruchovsky et al., Cancer 107 (2006) 389; Cancer 109 (2007) 785",
    )
