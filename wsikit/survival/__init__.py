"""Follow-up and risk as statistics: checks, curves, scores, models. Tables in, numbers with intervals out; knows nothing of slides."""
