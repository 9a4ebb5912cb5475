"""Bytes of the history's files: write-ahead log, segment file, columns. Pure."""
