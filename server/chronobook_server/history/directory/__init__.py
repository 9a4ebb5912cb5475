"""The data directory of a server, with a folder per symbol."""
