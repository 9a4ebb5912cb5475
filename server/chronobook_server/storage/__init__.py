"""Files behind a small interface, and the local disk that implements it."""
