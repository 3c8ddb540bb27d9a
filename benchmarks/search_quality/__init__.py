"""Compare samplers by searches over tables of measurements."""
