"""Running parts of the product around a test: servers, gateways, commands, certificates."""
