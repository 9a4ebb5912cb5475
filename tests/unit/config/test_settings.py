import pytest

from chronobook_server.config.settings import (
    Address,
    is_loopback,
    parse_address,
    parse_duration,
    parse_size,
    parse_symbols,
    parse_url,
)


def test_addresses() -> None:
    assert parse_address("127.0.0.1:50051") == Address("127.0.0.1", 50051)
    assert str(parse_address("[::1]:0")) == "[::1]:0"
    assert str(Address("localhost", 5)) == "localhost:5"
    for bad in ("50051", ":5", "host:", "host:x", "host:65536"):
        with pytest.raises(ValueError, match="is not HOST:PORT"):
            parse_address(bad)


def test_symbols_are_upper_case_and_each_once_in_order() -> None:
    assert parse_symbols("ethusdt, BTCUSDT,ETHUSDT,") == ("ETHUSDT", "BTCUSDT")


@pytest.mark.parametrize(("text", "ms"), [("24h", 86_400_000), ("90m", 5_400_000), ("1.5s", 1500), ("7d", 604_800_000)])
def test_durations(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "0s", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_urls_have_their_scheme_and_no_slash_at_the_end() -> None:
    assert parse_url("https://x/y/", "http", "https") == "https://x/y"
    with pytest.raises(ValueError, match="does not start with ws:// or wss://"):
        parse_url("https://x", "ws", "wss")


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(is_loopback(Address(host, 1)) for host in ("localhost", "127.0.0.1", "127.0.0.2", "::1"))
    assert not any(is_loopback(Address(host, 1)) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"))


@pytest.mark.parametrize(("text", "size"), [("500MB", 500_000_000), ("1.5GB", 1_500_000_000), ("1TB", 10**12)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "-1GB", "0MB", "5 gb"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
