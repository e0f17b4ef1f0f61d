"""The patient, the twin, and the verbs that act on them. Knows no file format."""

from tumortwin.twin._build import GliomaSettings as GliomaSettings
from tumortwin.twin._build import build_problem as build_problem
from tumortwin.twin._build import dropped_paths as dropped_paths
from tumortwin.twin._build import on_frame as on_frame
from tumortwin.twin._build import time_error as time_error
from tumortwin.twin._build import unused_adc as unused_adc
from tumortwin.twin._cohort import BurdenCurves as BurdenCurves
from tumortwin.twin._cohort import CohortForecast as CohortForecast
from tumortwin.twin._cohort import forecast_cohort as forecast_cohort
from tumortwin.twin._forecast import Forecast as Forecast
from tumortwin.twin._forecast import forecast as forecast
from tumortwin.twin._frame import ModelFrame as ModelFrame
from tumortwin.twin._patient import Patient as Patient
from tumortwin.twin._patient import Scan as Scan
from tumortwin.twin._recommend import check_horizon as check_horizon
from tumortwin.twin._recommend import path_gap as path_gap
from tumortwin.twin._recommend import planning_problem as planning_problem
from tumortwin.twin._recommend import recommend_schedule as recommend_schedule
from tumortwin.twin._replay import replay_cases as replay_cases
from tumortwin.twin._replay import replay_scores as replay_scores
from tumortwin.twin._replay import truth_entries as truth_entries
from tumortwin.twin._twin import Twin as Twin
from tumortwin.twin._unlearned import prior_only as prior_only
from tumortwin.twin._virtual import VirtualTumor as VirtualTumor
from tumortwin.twin._virtual import virtual_patient as virtual_patient
