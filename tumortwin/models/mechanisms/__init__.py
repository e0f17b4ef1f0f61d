"""One file a physical process."""

from tumortwin.models.mechanisms._diffusion import Diffusion as Diffusion
from tumortwin.models.mechanisms._proliferation import AbstractProliferation as AbstractProliferation
from tumortwin.models.mechanisms._proliferation import LogisticProliferation as LogisticProliferation
from tumortwin.models.mechanisms._proliferation import PatternedProliferation as PatternedProliferation
from tumortwin.models.mechanisms._treatment import DrugResponse as DrugResponse
from tumortwin.models.mechanisms._treatment import RadiotherapyResponse as RadiotherapyResponse
