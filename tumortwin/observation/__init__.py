"""From the state of the tumor to what a scanner or an assay would show, with its noise."""

from tumortwin.observation._adc import AdcObservation as AdcObservation
from tumortwin.observation._adc import adc_from_cellularity as adc_from_cellularity
from tumortwin.observation._adc import cellularity_from_adc as cellularity_from_adc
from tumortwin.observation._base import AbstractObservation as AbstractObservation
from tumortwin.observation._counts import NegativeBinomialCounts as NegativeBinomialCounts
from tumortwin.observation._counts import PoissonCounts as PoissonCounts
from tumortwin.observation._datum import Datum as Datum
from tumortwin.observation._glioma_mask import GliomaMaskObservation as GliomaMaskObservation
from tumortwin.observation._lesion import LesionReadings as LesionReadings
from tumortwin.observation._lesion import Visits as Visits
from tumortwin.observation._mask import MaskObservation as MaskObservation
from tumortwin.observation._residual import AbstractNormalError as AbstractNormalError
from tumortwin.observation._residual import AbstractResidualError as AbstractResidualError
from tumortwin.observation._residual import AdditiveError as AdditiveError
from tumortwin.observation._residual import CombinedError as CombinedError
from tumortwin.observation._residual import LogNormalError as LogNormalError
from tumortwin.observation._residual import ProportionalError as ProportionalError
from tumortwin.observation._residual import log_ndtr_between as log_ndtr_between
from tumortwin.observation._volume import VolumeObservation as VolumeObservation
