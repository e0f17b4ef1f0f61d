"""Where things are: grids, domains, tissue, finite-volume operators, windows, resampling. Knows no time, no disease."""

from tumortwin.geometry._blocks import block_mean as block_mean
from tumortwin.geometry._domain import Domain as Domain
from tumortwin.geometry._domain import Tissue as Tissue
from tumortwin.geometry._eikonal import travel_distance as travel_distance
from tumortwin.geometry._grid import Grid as Grid
from tumortwin.geometry._operators import Faces as Faces
from tumortwin.geometry._operators import add_ring as add_ring
from tumortwin.geometry._operators import divergence as divergence
from tumortwin.geometry._operators import drop_ring as drop_ring
from tumortwin.geometry._operators import face_conductances as face_conductances
from tumortwin.geometry._operators import spectral_bound as spectral_bound
from tumortwin.geometry._window import Window as Window
from tumortwin.geometry._window import window_around as window_around
from tumortwin.geometry._window import window_of_shape as window_of_shape
from tumortwin.geometry._within_voxel import level_of_edge as level_of_edge
from tumortwin.geometry._within_voxel import smaller_difference as smaller_difference
from tumortwin.geometry._within_voxel import steepness as steepness
