"""Tables, statistics, plots and the report, from records alone."""
