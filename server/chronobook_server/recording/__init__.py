"""Capture of an exchange's streams to files."""
