"""Operating system and event loop: addresses, processes, time slices."""
