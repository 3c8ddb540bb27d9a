"""Define the exit codes of every command in one table."""

from __future__ import annotations

OK = 0  # done; of a search: a feasible choice was found; of the doctor: the device is fit to be measured
BUG = 1  # a bug of this project; also Python's own code for an uncaught exception
USER = 2  # invalid settings, data, space or device name; also argparse's own code
NOTHING_FITS = 3  # of a search: no candidate is feasible; of the doctor: the device is not fit to be measured
DEVICE = 4  # the device can't be reached, or the connection to it was lost
HOST = 5  # this machine has no disk space or memory left
INTERRUPTED = 130  # Ctrl-C; other signals end with 128 + their number
