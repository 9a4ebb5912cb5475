"""chronobook: exact order books of Binance USDⓈ-M futures, and their history."""
