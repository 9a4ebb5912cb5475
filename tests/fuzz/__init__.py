"""Fuzzing of everything that reads bytes from outside: see run.py."""

TARGETS = ("frames", "segments", "logs", "requests", "replies")
