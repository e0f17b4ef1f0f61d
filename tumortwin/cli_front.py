"""The front of a recommendation from the configuration: against what the effect is traded, its picture, its numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig

from tumortwin.cli_files import row_of
from tumortwin.config import ConfigError, check_fit, instantiate
from tumortwin.control import AbstractConstraint, AbstractObjective, AbstractOutcomeLimit, SecondAim, TradeOff
from tumortwin.report import ShownFront


def aim_of(config: DictConfig, objective: AbstractObjective, facets: Mapping[str, frozenset[str]]) -> SecondAim | None:
    """What `front` trades the objective against; None for no front.

    **Arguments:** `facets`: of the decision, by which the choice and the search have to fit.

    **Raises:** `ConfigError` for a front that is not for this decision, one against the objective itself, and a search
    that does not take its limit; `ValueError` for shares that are none.
    """
    check_fit(config, "front", facets)
    settings = config.front
    if settings.limit is None:
        return None

    def limit(epsilon: float) -> AbstractConstraint | AbstractOutcomeLimit:
        return instantiate(settings.limit, where="front.limit", limit=epsilon)

    first = limit(0.0)
    if isinstance(first, AbstractOutcomeLimit):
        if first.objective.name == objective.name:
            raise ConfigError(
                f"required: front=... against another measure than the objective\nreceived: both are {objective.name}\n"
                "try:      objective=mean_log_burden, or front=none"
            )
        try:
            check_fit(config, "controller", {**facets, "limits": frozenset({"outcome"})})
        except ConfigError as error:
            raise ConfigError(f"{error}\nwhere:    front, whose measure is known only after a solve") from error
    return SecondAim(limit, tuple(float(s) for s in settings.shares), str(settings.words), str(settings.unit))


def shown_front(found: TradeOff | None) -> ShownFront | None:
    """A front as a picture shows it: risks on fresh draws, of a log burden relative to the standard of care."""
    if found is None:
        return None
    return ShownFront(
        np.asarray([found.relative(risk) for risk in found.fresh]),
        found.front.values[:, 1],
        found.risk_words,
        f"{found.aim.words}, {found.aim.unit}",
        standard=(found.relative(found.standard_fresh), found.standard[1]),
    )


def front_rows(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The row of results.json: the least that does what the standard of care does. (A hypervolume stands beside its
    reference in plan.json: alone it says nothing.)"""
    front = content.get("front")
    if front is None or front["enough"] is None:
        return []
    return [row_of(f"{name}.front.enough", front["enough"], front["unit"])]
