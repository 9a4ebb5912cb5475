"""Streams: who is told what, when, and from where on."""
