"""Simulated exchange: wire-faithful, synthetic or replayed, with faults from one seed. Tests judge by it."""

from .faults import Faults
from .replay import BadRecording
from .server import Simulator, run_simulator

__all__ = ["BadRecording", "Faults", "Simulator", "run_simulator"]
