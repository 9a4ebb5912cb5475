"""The pure core: values, instrument, records, book, synchronisation. No I/O, no clock, no randomness, no asyncio."""
