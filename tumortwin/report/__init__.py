"""The report: figures and one self-contained page that an oncologist reads in five minutes. What draws belongs here."""

from tumortwin.report._data import TWIN as TWIN
from tumortwin.report._data import Anatomy as Anatomy
from tumortwin.report._data import Baseline as Baseline
from tumortwin.report._data import Channel as Channel
from tumortwin.report._data import Coverage as Coverage
from tumortwin.report._data import Diagnostics as Diagnostics
from tumortwin.report._data import Forecast as Forecast
from tumortwin.report._data import ForecastMaps as ForecastMaps
from tumortwin.report._data import Image as Image
from tumortwin.report._data import ParameterDraws as ParameterDraws
from tumortwin.report._data import PatientSummary as PatientSummary
from tumortwin.report._data import Plan as Plan
from tumortwin.report._data import PlanRow as PlanRow
from tumortwin.report._data import PredictedMask as PredictedMask
from tumortwin.report._data import Regimen as Regimen
from tumortwin.report._data import ReportData as ReportData
from tumortwin.report._data import Result as Result
from tumortwin.report._data import Score as Score
from tumortwin.report._data import Treatments as Treatments
from tumortwin.report._data import Visit as Visit
from tumortwin.report._data import VolumePrediction as VolumePrediction
from tumortwin.report._data import volume_prediction as volume_prediction
from tumortwin.report._words import judge as judge
from tumortwin.report._write import write_report as write_report
