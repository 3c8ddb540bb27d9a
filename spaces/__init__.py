"""Define candidates, spaces of candidates, and the networks that a candidate stands for."""

from remote.deprecated_names import install

install()
