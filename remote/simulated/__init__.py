"""Simulate boards behind the agent's protocol, with injected faults."""
