"""What is given: schedules, radiotherapy, drugs, surgery. Knows no tumor state."""

from tumortwin.treatments._history import StepHistory as StepHistory
from tumortwin.treatments._kill import LogKill as LogKill
from tumortwin.treatments._radiobiology import biologically_effective_dose as biologically_effective_dose
from tumortwin.treatments._radiobiology import equivalent_dose_2gy as equivalent_dose_2gy
from tumortwin.treatments._radiobiology import log_kill as log_kill
from tumortwin.treatments._radiobiology import repopulated_dose as repopulated_dose
from tumortwin.treatments._radiobiology import survival as survival
from tumortwin.treatments._schedule import Course as Course
from tumortwin.treatments._schedule import Resection as Resection
from tumortwin.treatments._schedule import Schedule as Schedule
from tumortwin.treatments._schedule import weekday_fractions as weekday_fractions
