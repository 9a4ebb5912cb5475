"""The commands of `chronobook-server`."""
