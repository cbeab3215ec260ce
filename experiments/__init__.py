"""Experiments: training a head on a store, evaluating it, and the tables made of many runs."""
