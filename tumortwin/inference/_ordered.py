"""NumPyro distributions as pytrees with a fixed order of leaves."""

from typing import Any

import equinox as eqx
from numpyro.distributions import Distribution


class Ordered(eqx.Module):
    """A NumPyro distribution whose leaves stand in the alphabetical order of its fields.

    NumPyro orders them as a set of strings, which is another order in every process. A program that takes a
    distribution as an argument is then another program, and is never found again in the cache of compiled programs.

    `fields` name -> leaf, or the `Ordered` of a base distribution; `kind` its class; `rest` what is not an array.
    """

    fields: dict[str, Any]
    kind: type[Distribution] = eqx.field(static=True)
    rest: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    @classmethod
    def of(cls, entry: Distribution) -> "Ordered":
        """The ordered form of a distribution."""
        data, rest = entry.tree_flatten()
        fields = dict(zip(entry.gather_pytree_data_fields(), data, strict=True))
        named = dict(zip(entry.gather_pytree_aux_fields(), rest, strict=True))
        kept = {name: cls.of(leaf) if isinstance(leaf, Distribution) else leaf for name, leaf in fields.items()}
        return cls(kept, type(entry), tuple(sorted(named.items())))

    @property
    def distribution(self) -> Distribution:
        """The distribution itself."""
        fields = {name: leaf.distribution if isinstance(leaf, Ordered) else leaf for name, leaf in self.fields.items()}
        rest, kind = dict(self.rest), self.kind
        return kind.tree_unflatten(
            tuple(rest[name] for name in kind.gather_pytree_aux_fields()),
            tuple(fields[name] for name in kind.gather_pytree_data_fields()),
        )
