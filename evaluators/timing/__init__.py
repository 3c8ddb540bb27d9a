"""Time models on a device beside a reference model, and detect disturbed measurements."""
