"""Schedule evaluations: one module per execution engine."""
