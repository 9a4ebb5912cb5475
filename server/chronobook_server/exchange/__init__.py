"""The exchange's side: what its bytes mean, how often it may be asked, and the sockets to it."""
