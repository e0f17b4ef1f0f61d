"""Networks and reduced models that stand for a model, or for its posterior, and say where they may."""

from tumortwin.surrogates._amortised import AmortisedPosterior as AmortisedPosterior
from tumortwin.surrogates._amortised import Training as Training
from tumortwin.surrogates._amortised import train_amortised as train_amortised
from tumortwin.surrogates._amortised_calibrator import AmortisedCalibrator as AmortisedCalibrator
from tumortwin.surrogates._features import AbstractFeatures as AbstractFeatures
from tumortwin.surrogates._features import Counted as Counted
from tumortwin.surrogates._features import ProjectedData as ProjectedData
from tumortwin.surrogates._features import WholeData as WholeData
from tumortwin.surrogates._features import counted as counted
from tumortwin.surrogates._features import leading_modes as leading_modes
from tumortwin.surrogates._features import observed_values as observed_values
from tumortwin.surrogates._simulators import BankSimulator as BankSimulator
from tumortwin.surrogates._simulators import FreshSimulator as FreshSimulator
from tumortwin.surrogates._simulators import noisy_values as noisy_values
from tumortwin.surrogates._simulators import predicted_values as predicted_values
from tumortwin.surrogates._simulators import simulation_bank as simulation_bank
