"""One JSON for each run."""
