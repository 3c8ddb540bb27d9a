"""Provide the compression operations, one module each."""
