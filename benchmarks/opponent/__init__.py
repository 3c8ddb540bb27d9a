"""Compare searches with a script that an engineer would write, within the same minutes."""
