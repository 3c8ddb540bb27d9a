"""Provide the samplers: one module per sampler, each with a function `make`."""
