"""The gRPC API: requests to questions, answers to messages, refusals to statuses."""
