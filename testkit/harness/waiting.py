"""Waiting times of tests. These numbers are no promise of the product; they only keep a test from hanging.

A promise about time has its own number, in its test.
"""

# Far more than a busy machine needs, and less than pytest's own timeout, which does not name the awaited event.
PATIENCE = 120.0
# For events that Envoy's own timeouts of 60 s and more would also cause.
SOON = 30.0
