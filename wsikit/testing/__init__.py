"""Slides whose truth is known, and suites that every reader, stain method and model must pass."""
