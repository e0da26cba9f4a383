"""The command line: one module per verb, quick to start, one line per error."""
