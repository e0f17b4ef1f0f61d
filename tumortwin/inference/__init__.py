"""From data to a posterior: prior, problem, calibrators, diagnostics."""

from tumortwin.inference._calibrate import AbstractCalibrator as AbstractCalibrator
from tumortwin.inference._calibrate import Checkpoint as Checkpoint
from tumortwin.inference._calibrate import calibrate as calibrate
from tumortwin.inference._correlation import correlation_volume as correlation_volume
from tumortwin.inference._correlation import reweight as reweight
from tumortwin.inference._distributions import truncated_log_normal as truncated_log_normal
from tumortwin.inference._identifiability import Identifiability as Identifiability
from tumortwin.inference._identifiability import identifiability_report as identifiability_report
from tumortwin.inference._importance import PsisCalibrator as PsisCalibrator
from tumortwin.inference._laplace import Laplace as Laplace
from tumortwin.inference._laplace import LaplaceCalibrator as LaplaceCalibrator
from tumortwin.inference._linearize import Linearization as Linearization
from tumortwin.inference._linearize import central_difference_jacobian as central_difference_jacobian
from tumortwin.inference._linearize import linearize as linearize
from tumortwin.inference._map import MapCalibrator as MapCalibrator
from tumortwin.inference._pareto import effective_draws as effective_draws
from tumortwin.inference._pareto import pareto_smooth as pareto_smooth
from tumortwin.inference._posterior import Posterior as Posterior
from tumortwin.inference._posterior import weighted_quantile as weighted_quantile
from tumortwin.inference._prior import Prior as Prior
from tumortwin.inference._problem import Problem as Problem
from tumortwin.inference._problem import log_density_batch as log_density_batch
