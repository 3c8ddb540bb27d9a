"""Export networks to ONNX, check operator support and convert graphs to the formats of runtimes."""
