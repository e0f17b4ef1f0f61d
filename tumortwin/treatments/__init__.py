"""What is given: schedules, radiotherapy, drugs, surgery. Knows no tumor state."""

from tumortwin.treatments._schedule import Course as Course
from tumortwin.treatments._schedule import Resection as Resection
from tumortwin.treatments._schedule import Schedule as Schedule
from tumortwin.treatments._schedule import weekday_fractions as weekday_fractions
