"""The running server: its tasks, metrics, maintenance and sealing process."""
