"""Hostile requests with their required answers at the edge. `{token}` is a good token."""

from typing import NamedTuple

SERVICE = "/chronobook.v1.OrderBookService"


class Hostile(NamedTuple):
    """A request as bytes, and the HTTP status that it must get; 0: the connection ends without an answer."""

    name: str
    request: bytes
    status: int


def raw(line: str, *headers: str, body: bytes = b"", host: str | None = "host: edge") -> bytes:
    """Return a request of HTTP/1.1 that brings a good token."""
    head = [line, *([host] if host else []), "authorization: Bearer {token}", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def get(path: str, *headers: str) -> bytes:
    return raw(f"GET {path} HTTP/1.1", *headers)


def post(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    return raw(f"POST {path} HTTP/1.1", f"content-type: {kind}", f"content-length: {len(body)}", *headers, body=body)


def asks(body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    return post("/quantity", body, *headers, kind=kind)


def framed(*headers: str) -> bytes:
    """Return a request whose headers state the end of its body in these ways."""
    return raw("POST /quantity HTTP/1.1", "content-type: application/json", *headers, body=b"0\r\n\r\n")


def call(method: str, body: bytes, *headers: str, kind: str = "application/grpc") -> bytes:
    return post(f"{SERVICE}/{method}", body, "te: trailers", *headers, kind=kind)


PATHS = [
    Hostile("up to the root and out", get("/../../../etc/passwd"), 404),
    Hostile("the same, escaped", get("/%2e%2e/%2e%2e/etc/passwd"), 404),
    Hostile("up from a known path", get("/status/../../etc/passwd"), 404),
    Hostile("an escaped slash", get("/nearest-level%2f5"), 400),
    Hostile("an escaped backslash", get("/nearest-level/5%5c..%5cstatus"), 400),
    Hostile("an escaped slash on the way up", get("/..%2f..%2fstatus"), 400),
    Hostile("a backslash", get("/nearest-level/5\\..\\status"), 400),
    Hostile("slashes that mean one", get("//status"), 200),
    Hostile("a path parameter", get("/status;jsessionid=1"), 404),
    Hostile("an escaped zero byte", get("/status%00"), 400),
    Hostile("an escape cut short", get("/status%"), 404),
    Hostile("an overlong escape of a dot", get("/%c0%ae%c0%ae/status"), 404),
    Hostile("a path of 15,000 bytes", get("/" + "a" * 15_000), 404),
    Hostile("a fragment", get("/status#top"), 400),
    Hostile("another site's address as the path", get("http://other.example/status"), 200),
    Hostile("no path", raw("GET  HTTP/1.1"), 400),
    Hostile("Envoy's administration", get("/stats?format=json"), 404),
    Hostile("Envoy's administration, asked to end", post("/quitquitquit", b""), 404),
]

VALUES = [
    Hostile("a price that is no number", get("/nearest-level/NaN"), 400),
    Hostile("an endless price", get("/nearest-level/Infinity"), 400),
    Hostile("a price below nothing", get("/nearest-level/-5"), 400),
    Hostile("a price of nothing", get("/nearest-level/0"), 400),
    Hostile("a price beyond doubles", get("/nearest-level/1e999"), 400),
    Hostile("the smallest double", get("/nearest-level/5e-324"), 400),
    Hostile("the largest double", get("/nearest-level/1.7976931348623157e308"), 400),
    # Envoy reads it as 16, and the answer says so.
    Hostile("a hexadecimal price", get("/nearest-level/0x10"), 200),
    Hostile("digits of another script", get("/nearest-level/%D9%A5"), 400),
    Hostile("a price with a command in it", get("/nearest-level/5;rm%20-rf"), 400),
    Hostile("an endless instant", get("/nearest-level/99?timestamp=Infinity"), 400),
    Hostile("an instant beyond integers", get("/nearest-level/99?timestamp=1e300"), 400),
    Hostile("an instant that is no number", get("/orderbook?timestamp=NaN"), 400),
    Hostile("a huge limit", get("/orderbook?limit=2147483647"), 200),
    Hostile("a limit beyond 32 bits", get("/orderbook?limit=99999999999"), 400),
    Hostile("a limit of nothing", get("/orderbook?limit=0"), 400),
    Hostile("a limit below nothing", get("/orderbook?limit=-1"), 400),
    Hostile("two limits", get("/orderbook?limit=1&limit=2"), 400),
    Hostile("a huge page", get("/best-prices?page_size=2147483647"), 400),
    Hostile("a page token of ours by nobody", get("/best-prices?page_token=99999999999999999999"), 400),
    Hostile("a side that is none", get("/nearest-level/99?side=7"), 400),
    Hostile("a parameter that there is not", get("/status?debug=true"), 400),
    Hostile("a symbol with a zero byte", get("/status?symbol=%00"), 404),
    Hostile("a symbol of 10,000 letters", get("/status?symbol=" + "A" * 10_000), 400),
    Hostile("a symbol that is no text", get("/status?symbol=%ff%fe"), 400),
    Hostile("a symbol with a line break", get("/status?symbol=A%0d%0aset-cookie:%20a=b"), 404),
    Hostile("a symbol of a query language", get("/status?symbol=%27%20OR%201=1--"), 404),
]

BODIES = [
    Hostile("NaN as text", asks(b'{"price":"NaN"}'), 400),
    Hostile("NaN as it is", asks(b'{"price":NaN}'), 400),
    Hostile("an endless number", asks(b'{"price":1e999}'), 400),
    Hostile("a number of 10,000 digits", asks(b'{"price":' + b"9" * 10_000 + b"}"), 400),
    Hostile("no body", asks(b""), 400),
    Hostile("a misspelt field", asks(b'{"price":99,"timestmp":10}'), 400),
    Hostile("a field in another case", asks(b'{"price":99,"TimeStamp":10}'), 400),
    Hostile("a field twice", asks(b'{"price":99,"price":99}'), 400),
    Hostile("a field inside a field", asks(b'{"price":{"value":99}}'), 400),
    Hostile("a price in a list", asks(b'{"price":[99]}'), 400),
    Hostile("the body of the body", asks(b'{"price":99,"http_body":{"data":"e30="}}'), 400),
    Hostile("a misspelt list", post("/quantities", b'{"prices":[99],"timestamps":[10],"timestmps":[10]}'), 400),
    Hostile("a misspelt parameter beside a body", post("/quantity?timestmp=10", b'{"price":99}'), 400),
    Hostile("a body on GET", raw("GET /orderbook HTTP/1.1", "content-type: application/json", "content-length: 11",
            body=b'{"limit":1}'), 400),
    Hostile("a body in chunks on GET", raw("GET /orderbook HTTP/1.1", "transfer-encoding: chunked",
            body=b'b\r\n{"limit":1}\r\n0\r\n\r\n'), 400),
    Hostile("null", asks(b"null"), 400),
    Hostile("a list", asks(b"[]"), 400),
    Hostile("something after the end", asks(b'{"price":99}{"price":98}'), 400),
    Hostile("30,000 brackets", asks(b"[" * 30_000), 400),
    Hostile("an object 5,000 deep", asks(b'{"price":' * 5000 + b"1" + b"}" * 5000), 400),
    Hostile("no text at all", asks(bytes(range(128, 256))), 400),
    Hostile("half a surrogate", asks(b'{"price":99,"symbol":"\\ud800"}'), 400),
    Hostile("UTF-16", asks('{"price":99}'.encode("utf-16"), kind="application/json; charset=utf-16"), 400),
    Hostile("compressed, as it says", asks(b"\x1f\x8b\x08\x00" + b"\x00" * 60, "content-encoding: gzip"), 400),
    Hostile("not called JSON", asks(b'{"price":99}', kind="text/plain"), 415),
    Hostile("a form", asks(b"price=99", kind="application/x-www-form-urlencoded"), 415),
    Hostile("70,000 bytes", asks(b" " * 70_000), 413),
    Hostile("70,000 bytes in chunks", raw("POST /quantity HTTP/1.1", "content-type: application/json",
            "transfer-encoding: chunked", body=b"11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n"), 413),
    Hostile("10,001 pairs", post("/quantities", b'{"prices":[' + b"1," * 10_000 + b'1],"timestamps":[' + b"1," * 10_000
            + b"1]}"), 400),
    Hostile("800,000 bytes of pairs", post("/quantities", b" " * 800_000), 413),
]  # fmt: skip

METHODS = [
    Hostile("TRACE", raw("TRACE /status HTTP/1.1"), 405),
    Hostile("DELETE", raw("DELETE /orderbook HTTP/1.1"), 405),
    Hostile("CONNECT to elsewhere", raw("CONNECT other.example:443 HTTP/1.1"), 404),
    Hostile("a method of nobody", raw("BREW /status HTTP/1.1"), 405),
    Hostile("GET where POST belongs", get("/quantity"), 405),
    Hostile("a method that says another one", asks(b"{}", "x-http-method-override: GET"), 400),
    Hostile("a WebSocket", get("/watch-level/99", "upgrade: websocket", "connection: upgrade",
            "sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="), 403),
    Hostile("HTTP/2 without TLS's word for it", get("/status", "upgrade: h2c", "connection: upgrade, http2-settings",
            "http2-settings: AAMAAABkAAQAAP__"), 200),
]  # fmt: skip

SMUGGLING = [
    Hostile("a length and chunks", raw("POST /quantity HTTP/1.1", "content-type: application/json",
            "content-length: 4", "transfer-encoding: chunked", body=b"0\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n"), 400),
    Hostile("two lengths", framed("content-length: 4", "content-length: 5"), 400),
    Hostile("a length below nothing", framed("content-length: -1"), 400),
    Hostile("a length with a sign", framed("content-length: +5"), 400),
    Hostile("a length that is no number", framed("content-length: 0x5"), 400),
    Hostile("a length beyond 64 bits", framed(f"content-length: {2**64 + 5}"), 400),
    Hostile("chunks under another name", framed("transfer-encoding: xchunked"), 400),
    Hostile("chunks twice", framed("transfer-encoding: chunked, chunked"), 400),
    Hostile("a chunk without end", raw("POST /quantity HTTP/1.1", "content-type: application/json",
            "transfer-encoding: chunked", body=b"FFFFFFFFFFFFFFFFF\r\n"), 400),
    Hostile("a chunk of no size", raw("POST /quantity HTTP/1.1", "content-type: application/json",
            "transfer-encoding: chunked", body=b"zz\r\n"), 400),
    Hostile("a space before the colon", raw("GET /status HTTP/1.1", "content-length : 0"), 400),
    # An old way of writing one header; no part of it reaches the server unchanged.
    Hostile("a header over two lines", raw("GET /status HTTP/1.1", "x-a: b\r\n c"), 200),
    Hostile("a zero byte in a header", raw("GET /status HTTP/1.1", "x-a: b\x00c"), 400),
    # The same.
    Hostile("a lone carriage return", raw("GET /status HTTP/1.1", "x-a: b\rc"), 200),
    Hostile("a name with an underscore", raw("GET /status HTTP/1.1", "content_length: 5"), 400),
    Hostile("no host", raw("GET /status HTTP/1.1", host=None), 400),
    # Nothing depends on the host here; the local gateway refuses all names but its own.
    Hostile("two hosts", raw("GET /status HTTP/1.1", "host: other.example"), 200),
    Hostile("HTTP/1.0", raw("GET /status HTTP/1.0"), 426),
    Hostile("HTTP/0.9", b"GET /status\r\n\r\n", 426),
    Hostile("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n", 400),
]  # fmt: skip

HEADERS = [
    Hostile("20,000 bytes of one header", raw("GET /status HTTP/1.1", "x-a: " + "b" * 20_000), 431),
    Hostile("100 headers", raw("GET /status HTTP/1.1", *(f"x-{number}: b" for number in range(100))), 431),
    Hostile("a path for Envoy", get("/status", "x-envoy-original-path: /admin"), 200),
    Hostile("a deadline for Envoy", get("/status", "x-envoy-upstream-rq-timeout-ms: 1"), 200),
    Hostile("retries for Envoy", get("/status?symbol=NOPE", "x-envoy-retry-on: retriable-4xx"), 404),
    Hostile("another address", get("/status", "x-forwarded-for: 127.0.0.1", "x-real-ip: 127.0.0.1"), 200),
    Hostile("an id that is none", get("/status", 'x-request-id: " level=error event=forged'), 200),
    Hostile("something expected that nobody knows", get("/status", "expect: the-spanish-inquisition"), 200),
    Hostile("a deadline for gRPC that is none", get("/status", "grpc-timeout: soon"), 400),
    Hostile("two deadlines for gRPC", get("/status", "grpc-timeout: 1S", "grpc-timeout: 2S"), 400),
    Hostile("a deadline for gRPC that has passed", get("/status", "grpc-timeout: 0S"), 200),
    Hostile("bytes that are none", get("/status", "x-bin: !!!"), 200),
    Hostile("a status of gRPC", get("/status", "grpc-status: x"), 200),
    Hostile("an encoding of gRPC", get("/status", "grpc-encoding: zip"), 200),
    Hostile("another caller", get("/status", "x-chronobook-caller-address: 1.2.3.4:5"), 200),
    Hostile("a range of bytes", get("/openapi.json", "range: bytes=0-,0-,0-,0-,0-"), 200),
]  # fmt: skip

# Of gRPC over HTTP/1: its status is in the reply, or it is no gRPC at all.
CALLS = [
    Hostile("gRPC to a path of REST", post("/status", b"", kind="application/grpc"), 200),
    Hostile("a question that calls itself gRPC", get("/status", "content-type: application/grpc"), 200),
    Hostile("a question that calls itself gRPC-Web", get("/status", "content-type: application/grpc-web"), 404),
    Hostile("a message that is none", call("GetStatus", b"\x00\x00\x00\x00\x04\xff\xff\xff\xff"), 200),
    Hostile("a message of 4 GB, as it says", call("GetStatus", b"\x00\xff\xff\xff\xff"), 200),
    Hostile("a message of 2 MB", call("GetStatus", b"\x00\x00\x20\x00\x00" + b"\x00" * (2 << 20)), 200),
    Hostile("compressed with nothing", call("GetStatus", b"\x01\x00\x00\x00\x00"), 200),
    Hostile("compressed in an unknown way", call("GetStatus", b"\x01\x00\x00\x00\x00", "grpc-encoding: zip"), 200),
    Hostile("a deadline without end", call("GetStatus", b"\x00\x00\x00\x00\x00", "grpc-timeout: 99999999H"), 200),
    Hostile("a deadline that is none", call("GetStatus", b"\x00\x00\x00\x00\x00", "grpc-timeout: soon"), 200),
    Hostile("a method that there is not", call("Nothing", b"\x00\x00\x00\x00\x00"), 200),
    Hostile("gRPC-Web that is no base64", call("GetStatus", b"!!!!", kind="application/grpc-web-text"), 400),
]

REQUESTS = [*PATHS, *VALUES, *BODIES, *METHODS, *SMUGGLING, *HEADERS, *CALLS]
