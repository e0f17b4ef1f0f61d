"""The patient, the twin, and the verbs that act on them. Knows no file format."""

from tumortwin.twin._patient import Patient as Patient
from tumortwin.twin._patient import Scan as Scan
