"""Rules of Binance USDⓈ-M futures: frames, contracts, request weight. Pure."""
