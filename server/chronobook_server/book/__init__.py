"""The order book of one symbol. Pure: no I/O, no clock, no randomness."""
