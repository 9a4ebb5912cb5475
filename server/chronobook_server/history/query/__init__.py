"""Reading side of history: points, pages, batches and replay."""
