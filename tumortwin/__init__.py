"""tumortwin: a hybrid mechanistic-AI tumor-twin research framework. Research software, not a medical device."""

__version__ = "0.1.0"
