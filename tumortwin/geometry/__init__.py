"""Where things are: grids, domains, tissue, finite-volume operators, windows, resampling. Knows no time, no disease."""

from tumortwin.geometry._domain import Domain as Domain
from tumortwin.geometry._domain import Tissue as Tissue
from tumortwin.geometry._grid import Grid as Grid
