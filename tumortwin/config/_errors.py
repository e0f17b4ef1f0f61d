"""The one exception for a wrong configuration; the command line turns it into exit code 2."""

import difflib
from collections.abc import Iterable

_NEAREST = 3
_CUTOFF = 0.5


class ConfigError(Exception):
    """A configuration that cannot be used. The message is complete: required, received, what to try."""


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known words most like `word`, best first; for a dotted path its last part counts as well."""
    words = sorted(set(known))
    found = difflib.get_close_matches(word, words, n=_NEAREST, cutoff=_CUTOFF)
    tail = word.rsplit(".", 1)[-1]
    tails = {name.rsplit(".", 1)[-1]: name for name in words}
    found += [tails[t] for t in difflib.get_close_matches(tail, tails, n=_NEAREST, cutoff=0.7)]
    return list(dict.fromkeys(found))[:_NEAREST]


def unknown(kind: str, word: str, known: Iterable[str]) -> ConfigError:
    """`ConfigError` for a word that is not among `known`, with the nearest ones offered."""
    words = sorted(set(known))
    offer = nearest(word, words) or words
    return ConfigError(f"required: a known {kind}\nreceived: {word!r}\ntry:      {', '.join(offer)}")
