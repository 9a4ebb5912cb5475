"""Client of chronobook: exact order books and their history."""
