"""Physical processes and the models they make. Knows no data, no inference."""

from tumortwin.models._base import AbstractInitialCondition as AbstractInitialCondition
from tumortwin.models._base import AbstractMechanism as AbstractMechanism
from tumortwin.models._base import AbstractModel as AbstractModel
from tumortwin.models._base import Context as Context
from tumortwin.models._base import TumorState as TumorState
from tumortwin.models._initial import ContourProfile as ContourProfile
from tumortwin.models._initial import GaussianSeed as GaussianSeed
from tumortwin.models._initial import GivenDensity as GivenDensity
from tumortwin.models._initial import GrownSeed as GrownSeed
from tumortwin.models.mechanisms import AbstractProliferation as AbstractProliferation
from tumortwin.models.mechanisms import Diffusion as Diffusion
from tumortwin.models.mechanisms import DrugResponse as DrugResponse
from tumortwin.models.mechanisms import LogisticProliferation as LogisticProliferation
from tumortwin.models.mechanisms import PatternedProliferation as PatternedProliferation
from tumortwin.models.mechanisms import RadiotherapyResponse as RadiotherapyResponse
from tumortwin.models.spatial import ReactionDiffusion as ReactionDiffusion
