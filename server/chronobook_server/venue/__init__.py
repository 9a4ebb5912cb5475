"""Connections, requests and snapshots: the parts that any exchange needs."""
