"""The network: a Fourier neural operator on cosines, with the anatomy's own diffusion as its local part."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.geometry import Faces, add_ring, divergence


@dataclasses.dataclass(frozen=True)
class OperatorSettings:
    """The choices of a neural operator and of what it vouches for.

    `modes` an axis, `width` channels and `blocks` of a network; `members` of the ensemble whose spread estimates the
    error; `hidden` units of the network that reads the summary; `level` of the bounds; `tolerance`: largest bound of
    the relative L2 error that is vouched for; `floor`: least estimate of that error; `domain_level`: share of expected
    cases that the domain holds.

    **Good values:** 7 modes, 16 channels, 4 blocks, two members for 32^3: .73 million weights together.
    """

    modes: int = 7
    width: int = 16
    blocks: int = 4
    members: int = 2
    hidden: int = 64
    level: float = 0.95
    tolerance: float = 0.15
    floor: float = 0.01
    domain_level: float = 0.98

    def __post_init__(self) -> None:
        if min(self.modes, self.width, self.blocks, self.members, self.hidden) < 1:
            raise ValueError(f"required: sizes of at least 1; received: {self}")


class Affine(eqx.Module):
    """Channels to channels, the same in every voxel: W h + b."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    @classmethod
    def drawn(cls, inputs: int, outputs: int, key: Array, dtype: jnp.dtype, scale: float = 1.0) -> "Affine":
        """Normal weights of variance `scale`^2 / inputs, no bias."""
        weight = scale * jax.random.normal(key, (outputs, inputs), dtype) / math.sqrt(inputs)
        return cls(weight, jnp.zeros(outputs, dtype))

    def __call__(self, h: Float[Array, "*voxel in"]) -> Float[Array, "*voxel out"]:
        flat = h.reshape(-1, h.shape[-1]) @ self.weight.T + self.bias[None]
        return flat.reshape(*h.shape[:-1], -1)


class Block(eqx.Module):
    """One layer: global mixing of the low cosines, local diffusion through the tissue, and the voxel itself.

    $$ h \\leftarrow h
       + P\\,\\mathrm{gelu}\\big((1 + a) \\odot (K h + V\\,\\nabla\\!\\cdot(f \\nabla h) + W h) + b\\big), \\qquad
       (K h)(x) = \\sum_{|k_i| < m} R_k\\,\\hat h_k\\,c_k(x) $$

    with c_k the orthonormal cosines (DCT-II), R_k a real matrix of channels for every k, f the faces of the anatomy and
    a, b read off the summary. The cosines are the Fourier modes of the field continued evenly beyond the box, which is
    what zero flux through its edge means. A flip of an axis multiplies the coefficient of k by (-1)^k, so K commutes
    with flips whatever its weights are, as the equations do; so do the two other parts.
    """

    spectral: Float[Array, "mode mode mode in out"]
    local: Affine
    point: Affine
    out: Affine

    @classmethod
    def drawn(cls, width: int, modes: int, key: Array, dtype: jnp.dtype) -> "Block":
        """Random weights, of such a size that a block hardly changes its input."""
        keys = jax.random.split(key, 4)
        spectral = jax.random.normal(keys[0], (modes, modes, modes, width, width), dtype) / width
        parts = [
            Affine.drawn(width, width, k, dtype, scale) for k, scale in zip(keys[1:], (0.3, 1.0, 0.3), strict=True)
        ]
        return cls(spectral, *parts)

    def __call__(
        self,
        h: Float[Array, "x y z channel"],
        faces: Faces,
        scale: Float[Array, " channel"],
        shift: Float[Array, " channel"],
    ) -> Float[Array, "x y z channel"]:
        mixed = self.mix(h) + self.point(h) + self.local(_diffused(h, faces))
        modulated = (1.0 + scale)[None, None, None] * mixed + shift[None, None, None]
        return h + self.out(jax.nn.gelu(modulated))

    def mix(self, h: Float[Array, "x y z channel"]) -> Float[Array, "x y z channel"]:
        """K h: three matrix products to the cosines, one matrix of channels a mode, three products back.

        Axis after axis, each product with what follows it in memory: no copy is made in between.
        """
        (nx, ny, nz, c), m = h.shape, self.spectral.shape[0]
        x, y, z = (jnp.asarray(cosines(n, min(m, n)), h.dtype) for n in (nx, ny, nz))
        i, j, k = x.shape[1], y.shape[1], z.shape[1]
        low = (x.T @ h.reshape(nx, -1)).reshape(i, ny, nz * c)
        low = jnp.matmul(y.T[None], low).reshape(i * j, nz, c)
        low = jnp.matmul(z.T[None], low).reshape(i * j * k, 1, c)
        low = jnp.matmul(low, self.spectral[:i, :j, :k].reshape(-1, c, c)).reshape(i * j, k, c)
        low = jnp.matmul(z[None], low).reshape(i, j, nz * c)
        low = jnp.matmul(y[None], low).reshape(i, -1)
        return (x @ low).reshape(nx, ny, nz, c)


def _diffused(h: Float[Array, "x y z channel"], faces: Faces) -> Float[Array, "x y z channel"]:
    """div(f grad h) of every channel. Channels first: XLA's slope of slices along leading axes is slow else."""
    apart = jax.vmap(lambda u: divergence(add_ring(u), faces))(jnp.moveaxis(h, -1, 0))
    return jnp.moveaxis(apart, 0, -1)


class FourierOperator(eqx.Module):
    """Fields and a summary to one field: what the logit of a density is to be moved by, zero before training.

    $$ h_0 = L\\,v, \\qquad h_{l+1} = \\mathrm{Block}_l(h_l;\\ s), \\qquad z = H\\,\\mathrm{gelu}(G\\,h_B) $$

    **Arguments:** of a call: `fields` v [x y z channel]; `summary` s, standardized; `faces` of the anatomy, without
    unit. Nothing depends on the number of voxels but the place of the modes.

    **Limits:** (for convenience) equivariant under flips of the axes, not under their exchange; waves shorter than the
    modes are left to the local part, which reaches one voxel a block.

    **Reference:** Li et al., ICLR 2021, arXiv:2010.08895 (Fourier neural operators); Liu-Schiaffini et al., ICML 2024,
    arXiv:2402.16845 (with differential kernels); Perez et al., AAAI 2018, arXiv:1709.07871 (modulation).
    """

    lift: Affine
    blocks: tuple[Block, ...]
    reader: tuple[Affine, Affine]
    head: tuple[Affine, Affine]

    @classmethod
    def drawn(
        cls, fields: int, summary: int, settings: OperatorSettings, *, key: Array, dtype: jnp.dtype | type = jnp.float32
    ) -> "FourierOperator":
        """Random weights; the last layer is zero, so that the answer begins where its base is."""
        kind, width = jnp.dtype(dtype), settings.width
        keys = jax.random.split(key, 5 + settings.blocks)
        modulation = 2 * width * settings.blocks
        return cls(
            Affine.drawn(fields, width, keys[0], kind),
            tuple(Block.drawn(width, settings.modes, k, kind) for k in keys[5:]),
            (
                Affine.drawn(summary, settings.hidden, keys[1], kind),
                Affine.drawn(settings.hidden, modulation, keys[2], kind, 0.3),
            ),
            (Affine.drawn(width, width, keys[3], kind), Affine.drawn(width, 1, keys[4], kind, 0.0)),
        )

    def __call__(
        self, fields: Float[Array, "x y z channel"], summary: Float[Array, " number"], faces: Faces
    ) -> Float[Array, "x y z"]:
        read = self.reader[1](jax.nn.gelu(self.reader[0](summary[None])))
        h = self.lift(fields)
        for block, (scale, shift) in zip(self.blocks, read.reshape(len(self.blocks), 2, -1), strict=True):
            h = block(h, faces, scale, shift)
        return self.head[1](jax.nn.gelu(self.head[0](h)))[..., 0]

    @property
    def dtype(self) -> jnp.dtype:
        """The precision of its weights."""
        return self.lift.weight.dtype


def cosines(n: int, modes: int) -> Float[np.ndarray, "n mode"]:
    """The first orthonormal cosines on n points: the columns of the DCT-II."""
    k, j = np.arange(modes), np.arange(n)
    basis = np.cos(np.pi * (j[:, None] + 0.5) * k[None] / n) * math.sqrt(2.0 / n)
    basis[:, 0] /= math.sqrt(2.0)
    return basis


def weight_count(networks: FourierOperator) -> int:
    """Number of weights of all networks together."""
    return sum(leaf.size for leaf in jax.tree.leaves(networks))
