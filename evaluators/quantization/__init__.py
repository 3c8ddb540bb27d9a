"""Quantize graphs: calibration, weight correction, quantization-aware training, and the ladder of these steps."""
