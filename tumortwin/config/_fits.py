"""What a choice of the configuration is for, and which choices of its group fit a decision."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tumortwin._paths import config_dir
from tumortwin.config._compose import group_options
from tumortwin.config._errors import ConfigError
from tumortwin.config._instantiate import FITS

PHRASES = {
    "pipeline": ("{}", {"scans": "a patient with scans", "cohort": "the subjects of a table"}),
    "kind": ("decisions of the kind {}", {}),
    "decides": ("decisions on {}", {}),
    "limits": ("limits on the {}", {}),
    "exposure": ("a model whose treatment is {}", {"drug": "a drug", "none": "not in it"}),
    "quantity": ("a model with the quantity {}", {}),
}
"""Facets of a setting, how they are put into words, and the words of their values."""


def declared(group: str, option: str, extra: Sequence[Path] = ()) -> dict[str, list[str]]:
    """What a choice (or the one that it is a variant of) says that it is for: facet -> values; {}: for everything."""
    for folder in (config_dir(), *extra):
        file = folder / group / f"{option}.yaml"
        if file.is_file():
            content = OmegaConf.to_container(OmegaConf.load(file))
            assert isinstance(content, dict)
            found: dict[str, list[str]] = {}
            for base in content.get("defaults", ()):
                if isinstance(base, str) and base != "_self_":
                    found |= declared(group, base, extra)
            own: Any = content.get(group, content).get(FITS) or {}
            return found | {str(facet): [str(v) for v in values] for facet, values in own.items()}
    return {}


def unfit(fits: Mapping[str, Sequence[str]], facets: Mapping[str, frozenset[str]]) -> list[str]:
    """The facets in which what a choice is for and what is there have nothing in common; others are not looked at."""
    return [facet for facet, wanted in fits.items() if facet in facets and not set(map(str, wanted)) & facets[facet]]


def fitting(group: str, facets: Mapping[str, frozenset[str]], extra: Sequence[Path] = ()) -> list[str]:
    """The choices of a group that fit."""
    return [o for o in group_options(group, extra) if not unfit(declared(group, o, extra), facets)]


def check_fit(config: DictConfig, group: str, facets: Mapping[str, frozenset[str]]) -> None:
    """Whether the choice of a group is for what is there.

    **Raises:** `ConfigError` that says what is there, what the choice is for, and which ones fit.
    """
    fits = config[group].get(FITS) or {}
    wrong = unfit(fits, facets)
    if not wrong:
        return
    there = " and ".join(_words(facet, sorted(facets[facet])) for facet in wrong)
    meant = " and ".join(_words(facet, [str(v) for v in fits[facet]]) for facet in wrong)
    options = ", ".join(fitting(group, facets))
    raise ConfigError(
        f"required: {group}=... for {there}\nreceived: one for {meant}\n"
        f"try:      {f'{group}={options}' if options else 'another decision=..., none of the choices fits'}"
    )


def check_pipeline(config: DictConfig) -> None:
    """Whether every choice is for this kind of data. **Raises:** `ConfigError`, as `check_fit`."""
    facets = {"pipeline": frozenset({str(config.pipeline.get("name"))})}
    for group in sorted(map(str, config), key=lambda name: name != "decision"):  # a decision brings others along
        if isinstance(config[group], DictConfig):
            check_fit(config, group, facets)


def _words(facet: str, values: Sequence[str]) -> str:
    phrase, names = PHRASES.get(facet, (f"{facet} {{}}", {}))
    return phrase.format(" or ".join(names.get(v, v) for v in values) or "none")
