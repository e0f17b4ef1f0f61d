"""Mechanism and network in one model: bounded, penalized, and exactly the mechanism until trained."""

from tumortwin.models.hybrid._closure import AbstractClosure as AbstractClosure
from tumortwin.models.hybrid._closure import InputRange as InputRange
from tumortwin.models.hybrid._closure import PerCapitaClosure as PerCapitaClosure
from tumortwin.models.hybrid._closure import RelativeClosure as RelativeClosure
from tumortwin.models.hybrid._compartment import HybridFlow as HybridFlow
from tumortwin.models.hybrid._compartment import HybridRates as HybridRates
from tumortwin.models.hybrid._compartment import correction_penalty as correction_penalty
from tumortwin.models.hybrid._compartment import rate_of as rate_of
from tumortwin.models.hybrid._compartment import with_closure as with_closure
from tumortwin.models.hybrid._network import Network as Network
from tumortwin.models.hybrid._network import weight_penalty as weight_penalty
from tumortwin.models.hybrid._spatial import NeuralProliferation as NeuralProliferation
