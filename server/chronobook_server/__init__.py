"""chronobook: exact order books of Binance USDⓈ-M futures, and their history."""

import os

# The server starts Envoy and the sealing process beside gRPC. They do not use gRPC, but its fork handlers would run in
# them, and sometimes end them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
