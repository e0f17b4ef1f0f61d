"""Canonical units. Everything is converted at the door, once (`io`); inside there is one unit a quantity."""

LENGTH = "mm"
TIME = "day"
DOSE = "Gy"
DIFFUSIVITY = "mm^2/day"
RATE = "1/day"
RADIOSENSITIVITY = "1/Gy"
VOLUME = "mm^3"
FRACTION = "1"
ADC = "1e-3 mm^2/s"

HOURS_PER_DAY = 24.0
DAYS_PER_WEEK = 7
MM3_PER_ML = 1000.0
