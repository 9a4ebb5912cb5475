"""Streams: the subscribers of a symbol, their messages, and their positions."""
