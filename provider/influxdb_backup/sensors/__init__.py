"""Sensors: wait until a window is settled, or until a plan's newest backup is fresh enough."""
