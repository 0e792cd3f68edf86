"""Records: one JSON file for each run."""
