"""chronobook: exact order books of Binance USDⓈ-M futures, and their history."""

import os

# gRPC would otherwise say on standard error, whenever Envoy is started beside it, that it skips its fork handlers.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
