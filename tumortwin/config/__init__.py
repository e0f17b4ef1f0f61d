"""Schema, composition and the one `instantiate`. An edge: no room below imports it."""

from tumortwin._paths import config_dir as config_dir
from tumortwin._paths import repository as repository
from tumortwin._paths import user_cache as user_cache
from tumortwin.config._compose import Composed as Composed
from tumortwin.config._compose import compose as compose
from tumortwin.config._compose import group_options as group_options
from tumortwin.config._compose import groups as groups
from tumortwin.config._compose import one_of_each as one_of_each
from tumortwin.config._compose import parse as parse
from tumortwin.config._compose import search_path as search_path
from tumortwin.config._errors import ConfigError as ConfigError
from tumortwin.config._errors import unknown as unknown
from tumortwin.config._fits import check_fit as check_fit
from tumortwin.config._fits import declared as declared
from tumortwin.config._fits import fitting as fitting
from tumortwin.config._fits import unfit as unfit
from tumortwin.config._instantiate import ALLOWED as ALLOWED
from tumortwin.config._instantiate import FITS as FITS
from tumortwin.config._instantiate import check_target as check_target
from tumortwin.config._instantiate import check_targets as check_targets
from tumortwin.config._instantiate import flatten as flatten
from tumortwin.config._instantiate import instantiate as instantiate
from tumortwin.config._instantiate import targets as targets
