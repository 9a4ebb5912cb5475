"""Makers of inputs: events, histories, damaged files, hostile requests, real captures."""
