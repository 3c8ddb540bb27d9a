"""Read sensors, keep files and time models on a device. The files are sent to it as text."""
