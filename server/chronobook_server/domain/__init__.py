"""Values of the domain: prices, times, records, gaps and errors. Pure: no I/O, no clock, no randomness."""
