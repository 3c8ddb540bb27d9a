"""Measure the product: commands that check its claims about accuracy, latency and search quality."""
