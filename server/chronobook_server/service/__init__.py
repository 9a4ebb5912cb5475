"""gRPC service: thin handlers between the contract and the markets."""
