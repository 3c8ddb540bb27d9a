"""Select the front, the choice and the baseline from measurements, and verify them."""
