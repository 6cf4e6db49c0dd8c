"""`make bench`: speed as ratios, both sides measured in turn in one run: machines are shared and noisy."""
