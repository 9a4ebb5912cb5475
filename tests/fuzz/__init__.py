"""Fuzzing of everything that reads bytes from outside: see run.py."""

TARGETS = ("frames", "kernel", "segments", "logs", "requests", "replies")
