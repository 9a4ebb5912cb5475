"""Subscriptions to levels and books, and the broker that publishes to them."""
