"""A demonstration on real data: ``make demo``."""
