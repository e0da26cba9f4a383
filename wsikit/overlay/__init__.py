"""Columns and points as pictures and shapes that lie on the slide. No viewer is imported here."""
