import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.domain.symbol_names import one_line, valid_symbol


@pytest.mark.parametrize(
    "name",
    [
        "ETHUSDT",
        "1000SHIBUSDT",
        "BTCUSDT_261225",
        "币安人生USDT",
        "我踏马来了USDT",
        "A",
        "S" * 64,
        "X1",
        "𠀀" * 63 + "币",
    ],
)
def test_what_real_names_look_like_is_a_symbol(name: str) -> None:
    assert valid_symbol(name)


@pytest.mark.parametrize(
    "name",
    [
        None, 5, True, b"ETHUSDT", ["A"], "", "ethusdt", "EthUSDT", "S" * 65, "币" * 65, "𠀀" * 64, "ETH USDT",
        "ETH/USDT", "ETH-USDT", ".ETH", "..", ".", "ETH.USDT", "lost+found", "aside", "A\0B", "A\x1b[2J", "A\nB",
        "A\u202eB", "\udc80", "A\udc80", "İUSDT", "ßUSDT", "A²", "٣", "A\u0301", "~", "A=B", "'A'",
    ],
)  # fmt: skip
def test_nothing_else_is_a_symbol(name: object) -> None:
    assert not valid_symbol(name)


@given(st.text(max_size=80))
def test_a_symbol_is_a_folder_and_comes_back_from_its_stream(name: str) -> None:
    if valid_symbol(name):
        assert name.isprintable()
        assert len(name.encode()) <= 255
        assert not set(name) & set("/.\\ %\0")
        assert name.lower().upper() == name


@given(st.text(st.characters(), max_size=300), st.integers(1, 250))
def test_a_shown_text_is_one_line_of_printable_characters(text: str, longest: int) -> None:
    shown = one_line(text, longest)
    assert shown.isprintable()
    assert len(shown) == min(len(text), longest)
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain words", "plain words"),
        ("a\x1b[2J\nb", "a\ufffd[2J\ufffdb"),
        ("ab\0" * 100, "ab\ufffd" * 66 + "ab"),
    ],
)
def test_only_what_a_terminal_obeys_is_replaced(text: str, shown: str) -> None:
    assert one_line(text) == shown
