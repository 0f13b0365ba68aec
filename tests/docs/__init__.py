"""The documents hold: they are complete, their links lead somewhere, and their examples run."""
