"""The stage of the deterministic simulation: a virtual clock, network, exchange and server."""
