"""Measure the effect of compression on accuracy and latency."""
