"""How long a test waits for what comes. No promise of the product is in these numbers, only a test that does not hang.

A promise about time has its own number, where it is tested.
"""

# Far more than a busy machine needs, and less than pytest's own timeout, which does not say what was waited for.
PATIENCE = 120.0
# For what the timeouts of Envoy, 60 s and more, would bring about as well.
SOON = 30.0
