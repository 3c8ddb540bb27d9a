"""Run models in one inference runtime per file. The files are sent to the device as text."""
