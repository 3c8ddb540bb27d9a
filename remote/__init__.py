"""Reach devices over ssh, describe what they can do, and run models on them."""

from remote.deprecated_names import install

install()
