"""Open, check, split and decode image data sets."""
