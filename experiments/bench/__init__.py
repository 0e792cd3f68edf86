"""The measurements of `experiments/benchmark.py`, one file a factor."""
