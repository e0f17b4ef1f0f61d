"""Models on a grid."""

from tumortwin.models.spatial._reaction_diffusion import ReactionDiffusion as ReactionDiffusion
