"""The run-time type check of the tests: beartype, with `float` meaning what it means to Python (an int will do)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
