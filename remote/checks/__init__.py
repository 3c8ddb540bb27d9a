"""Check whether a device is fit to be measured."""
