"""From tiles and detections to calls, counts and risk of slides and patients. Arrays in, plain facts out."""
