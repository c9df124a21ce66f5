"""Weights from other code, and for other code."""
