"""One symbol of the server: its synchroniser, history and broker behind one interface."""
