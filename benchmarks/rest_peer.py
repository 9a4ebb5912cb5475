"""Usual service for the same question: FastAPI, and a dict of the book per second. Run by benchmarks.unary.

`PYTHON rest_peer.py PORT START SECONDS LEVELS`; needs fastapi and uvicorn, see peers.txt.
"""

# mypy: allow-untyped-decorators, allow-subclassing-any

import sys

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

START, SECONDS, LEVELS = (int(text) for text in sys.argv[2:5])
BOOKS = {
    START + second: {round(2000 + level / 100, 2): 1.5 + (second + level) % 7 for level in range(LEVELS)}
    for second in range(SECONDS)
}
app = FastAPI()


class Question(BaseModel):
    """A price and an instant."""

    price: float
    timestamp: float


class Answer(BaseModel):
    """The quantity at a price."""

    price: float
    timestamp: float
    quantity: float
    difference: float | None


@app.post("/quantity")
async def quantity(question: Question) -> Answer:
    """Answer from the book of that second."""
    second = int(question.timestamp)
    book, before = BOOKS.get(second), BOOKS.get(second - 1)
    if book is None:
        raise HTTPException(404, "not held")
    found = book.get(question.price, 0.0)
    difference = None if before is None else found - before.get(question.price, 0.0)
    return Answer(price=question.price, timestamp=question.timestamp, quantity=found, difference=difference)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False)
