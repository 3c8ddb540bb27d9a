"""Provide the built-in architecture families, one module each."""
