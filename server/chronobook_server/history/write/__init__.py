"""Writing side of history: write-ahead log, sealing, recovery, retention."""
