"""Run the stages of an evaluation: structure, export of the trained graph, accuracy and agreement with the host."""
