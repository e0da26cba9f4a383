"""Train models from one's own slides and labels, split by patient."""
