"""Segments: the one in memory, the sealed ones, and their order in time."""
