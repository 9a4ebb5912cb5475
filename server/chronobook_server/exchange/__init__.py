"""The exchange's side: decoding of its bytes, limits on requests, and the sockets to it."""
