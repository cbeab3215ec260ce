"""longreel: long-tailed video recognition at feature level."""

__version__ = "0.1.0"
