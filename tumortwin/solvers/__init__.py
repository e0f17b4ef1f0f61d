"""From a model and a schedule to a trajectory. Knows no inference."""

from tumortwin.solvers._compartment import CompartmentTrajectory as CompartmentTrajectory
from tumortwin.solvers._compartment import simulate_compartment as simulate_compartment
from tumortwin.solvers._moving import MovingEdges as MovingEdges
from tumortwin.solvers._moving import path_difference as path_difference
from tumortwin.solvers._moving import simulate_moving as simulate_moving
from tumortwin.solvers._reaction import SubStep as SubStep
from tumortwin.solvers._reaction import flow_coefficients as flow_coefficients
from tumortwin.solvers._reaction import tabulate as tabulate
from tumortwin.solvers._rkl import diffuse as diffuse
from tumortwin.solvers._rkl import diffusion_matrix as diffusion_matrix
from tumortwin.solvers._rkl import stage_count as stage_count
from tumortwin.solvers._simulate import simulate as simulate
from tumortwin.solvers._steps import FixedSteps as FixedSteps
from tumortwin.solvers._steps import Phase as Phase
from tumortwin.solvers._strang import StrangRKL2 as StrangRKL2
from tumortwin.solvers._trajectory import RESULTS as RESULTS
from tumortwin.solvers._trajectory import Trajectory as Trajectory
