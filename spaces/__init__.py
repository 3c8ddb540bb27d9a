"""Define candidates, spaces of candidates, and the networks that a candidate stands for."""

from remote.moved import install

install()
