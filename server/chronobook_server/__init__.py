"""chronobook: exact order books of Binance USDⓈ-M futures, and their history."""

import os

# Envoy and the sealing process are started beside gRPC, and never use it. Its fork handlers would run in them all the
# same, and now and then end them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
