"""Store what a run measured, so that a killed run can be resumed."""
