"""Resolve device names to the boards that `devices.toml` files describe."""
