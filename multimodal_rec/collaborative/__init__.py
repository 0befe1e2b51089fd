"""Scores learned from the log alone, blended with the model's own on validation."""
