"""Tables, statistics, plots and the report, computed from records."""
