"""The history of a symbol: every level change of the retention period, with its gaps."""
