"""Scores of a forecast against what was seen. Host arrays; knows no model."""

from tumortwin.metrics._baselines import baseline_forecasts as baseline_forecasts
from tumortwin.metrics._baselines import dilation as dilation
from tumortwin.metrics._baselines import exponential_growth as exponential_growth
from tumortwin.metrics._baselines import persistence as persistence
from tumortwin.metrics._baselines import signed_distance as signed_distance
from tumortwin.metrics._baselines import to_volume as to_volume
from tumortwin.metrics._baselines import volume_growth_rate as volume_growth_rate
from tumortwin.metrics._concordance import concordance as concordance
from tumortwin.metrics._concordance import correlation as correlation
from tumortwin.metrics._forecast import BASELINES as BASELINES
from tumortwin.metrics._forecast import ForecastCase as ForecastCase
from tumortwin.metrics._forecast import score_forecast as score_forecast
from tumortwin.metrics._overlap import dice as dice
from tumortwin.metrics._overlap import hausdorff95 as hausdorff95
from tumortwin.metrics._overlap import surface_distances as surface_distances
from tumortwin.metrics._overlap import volume_similarity as volume_similarity
from tumortwin.metrics._scores import Proportion as Proportion
from tumortwin.metrics._scores import central_interval as central_interval
from tumortwin.metrics._scores import clopper_pearson as clopper_pearson
from tumortwin.metrics._scores import coverage as coverage
from tumortwin.metrics._scores import crps as crps
from tumortwin.metrics._scores import crps_gaussian as crps_gaussian
from tumortwin.metrics._scores import interval_score as interval_score
from tumortwin.metrics._scores import probability_integral_transform as probability_integral_transform
from tumortwin.metrics._scores import quantile as quantile
from tumortwin.metrics._scores import wilson as wilson
