"""Plain implementations that answers are compared with. They share nothing with the server."""
