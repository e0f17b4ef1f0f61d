"""The references of a configuration, read from the docstrings of what it is made of."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from tumortwin.config import check_target, targets

_HEADING = re.compile(r"(?:\*\*References?:?\*\*:?|^\s*References?:)\s*(.*)")
_ALWAYS = {
    "tumortwin": "tumortwin contributors, tumortwin: a hybrid mechanistic-AI tumor-twin research framework (see "
    "CITATION.cff).",
    "jax": "Bradbury et al., JAX: composable transformations of Python+NumPy programs, 2018.",
    "diffrax": "Kidger, On Neural Differential Equations, PhD thesis, University of Oxford, 2021. arXiv:2202.02435.",
    "equinox": "Kidger and Garcia, Equinox: neural networks in JAX via callable PyTrees and filtered transformations, "
    "2021. arXiv:2111.00254.",
    "numpyro": "Phan, Pradhan and Jankowiak, Composable effects for flexible and accelerated probabilistic programming "
    "in NumPyro, 2019. arXiv:1912.11554.",
}
_STAGES = "tumortwin.cli_stages"


@dataclasses.dataclass
class Reference:
    """`text` as it stands in the docstring, and which parts use it."""

    text: str
    used_by: list[str]

    @property
    def key(self) -> str:
        """First author and year."""
        year = re.search(r"\b(19|20)\d\d\b", self.text)
        return re.sub(r"\W", "", self.text.split()[0]).lower() + (year.group() if year else "")

    def bibtex(self, again: int = 0) -> str:
        """A `@misc` entry: the author and year for the key, the rest as a note; `again`: entries before it with the
        same author and year, which a letter tells apart."""
        year = re.search(r"\b(19|20)\d\d\b", self.text)
        doi = re.search(r"\b10\.\d{4,9}/[^\s,;]+[^\s,;.]", self.text)
        fields = [f"  note = {{{self.text}}}", *([f"  year = {{{year.group()}}}"] if year else [])]
        fields += [f"  doi = {{{doi.group()}}}"] if doi else []
        return f"@misc{{{self.key}{chr(ord('a') + again) if again else ''},\n" + ",\n".join(fields) + "\n}"


def found_in(doc: str | None) -> list[str]:
    """The references of a docstring: what follows `**Reference:**` up to an empty line; one a bullet or `;`."""
    lines, found, inside = (inspect.cleandoc(doc) if doc else "").splitlines(), [], False
    for line in lines:
        heading = _HEADING.search(line)
        if heading:
            inside, line = True, heading.group(1)
        elif inside and (not line.strip() or line.strip().startswith("**")):
            inside = False
        if inside and line.strip():
            text = line.strip()
            new = bool(heading) or text.startswith(("- ", "* ")) or not found
            found.append(text.lstrip("-* ")) if new else found.append(f"{found.pop()} {text}")
    return [part.strip() for entry in found for part in entry.split("; ") if part.strip()]


def _documented(config: Any) -> Iterator[tuple[str, str | None]]:
    """(name, docstring) of everything that the configuration names, and of the modules that define it."""
    seen = set()
    for place, target in targets(config):
        thing = check_target(target, place)
        yield target.rsplit(".", 1)[-1], inspect.getdoc(thing)
        module = inspect.getmodule(thing)
        if module is not None and module.__name__.startswith("tumortwin.") and module.__name__ not in seen:
            seen.add(module.__name__)
            yield module.__name__, module.__doc__
    stages = importlib.import_module(_STAGES)
    for thing in stages.cited(config):
        yield getattr(thing, "__name__", str(thing)), inspect.getdoc(thing)


def references(config: Any) -> list[Reference]:
    """Every reference of a composed configuration, each once, in alphabetical order; the software last."""
    found: dict[str, Reference] = {}
    for name, doc in _documented(config):
        for text in found_in(doc):
            users = found.setdefault(text, Reference(text, [])).used_by
            if name not in users:
                users.append(name)
    software = [Reference(text, [name]) for name, text in _ALWAYS.items()]
    return [*sorted(found.values(), key=lambda r: r.text.lower()), *software]
