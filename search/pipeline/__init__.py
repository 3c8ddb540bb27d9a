"""Evaluate one candidate through the stages, and prepare what they depend on: parent sizes and channel steps."""
