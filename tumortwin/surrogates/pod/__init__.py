"""Reduced-order models: the equations on a few modes."""

from tumortwin.surrogates.pod._advance import ReducedState as ReducedState
from tumortwin.surrogates.pod._basis import Basis as Basis
from tumortwin.surrogates.pod._basis import pod_basis as pod_basis
from tumortwin.surrogates.pod._calibrate import calibrate_pod as calibrate_pod
from tumortwin.surrogates.pod._calibrate import hold_against as hold_against
from tumortwin.surrogates.pod._fit import PodSettings as PodSettings
from tumortwin.surrogates.pod._fit import basis_of as basis_of
from tumortwin.surrogates.pod._fit import enlarged as enlarged
from tumortwin.surrogates.pod._fit import fit_pod as fit_pod
from tumortwin.surrogates.pod._fit import reduced_many as reduced_many
from tumortwin.surrogates.pod._operators import ReducedOperators as ReducedOperators
from tumortwin.surrogates.pod._operators import project as project
from tumortwin.surrogates.pod._surrogate import PodSurrogate as PodSurrogate
