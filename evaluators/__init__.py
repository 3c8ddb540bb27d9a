"""Measure candidates: build, train, export, quantize, time and score networks for a device."""

from remote.deprecated_names import install

install()
