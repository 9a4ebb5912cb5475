"""Synchronisation of one symbol's book with the exchange: a state machine and its parts. Pure."""
