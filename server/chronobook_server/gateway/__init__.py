"""The gateway: an Envoy process and its configuration."""
