"""Assemble one complete run: open its resources, search, select finalists and publish the result."""
