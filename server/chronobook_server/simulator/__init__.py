"""Simulated exchange: wire-faithful, synthetic or replayed, with faults from one seed. Tests judge by it."""

from chronobook_server.simulator.faults import Faults
from chronobook_server.simulator.recordings import BadRecording
from chronobook_server.simulator.server import Simulator, run_simulator

__all__ = ["BadRecording", "Faults", "Simulator", "run_simulator"]
