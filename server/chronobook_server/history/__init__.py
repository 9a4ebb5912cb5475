"""The history of a symbol: every level change of the retention period, and what is not known of it."""
