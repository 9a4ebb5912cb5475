"""Both clients through an edge: accepted and refused callers, their errors, and the request id of every call."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from google.rpc.status_pb2 import Status

from chronobook import ChronobookError, ConnectionFailed, Kind, Tls, Unauthenticated
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake, refusal
from testkit.fakes.guarded_server import Guarded, client_tls, guarding, relay
from testkit.fakes.resetting_peer import resetting
from testkit.harness.certificates import make_authority
from tests.integration.client.conftest import Made

KIND = pb.WatchLevelResponse
STATE = KIND(kind=KIND.STATE, symbol="ETHUSDT", price=5, timestamp=2, update_id=20)
BOOK_STATE = pb.WatchOrderBookResponse(kind=KIND.STATE, symbol="ETHUSDT", timestamp=2, update_id=20)
LOST = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="the connection broke")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with guarding(tmp_path) as running:
        running.fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
        running.fake.messages, running.fake.book_messages = [STATE], [BOOK_STATE]
        yield running


async def test_who_has_certificate_and_token_is_let_in(guarded: Guarded, made: Made) -> None:
    client = made(guarded.fake.target, tls=guarded.tls, token="valid\n")
    by_name = made(guarded.fake.target.replace("127.0.0.1", "localhost"), tls=guarded.tls, token="valid")

    assert (await client.status()).symbol == "ETHUSDT"
    assert (await by_name.status()).symbol == "ETHUSDT"
    guarded.fake.answer = None
    assert (await anext(client.watch_level(5))).kind is Kind.STATE
    assert (await anext(client.watch_order_book())).kind is Kind.STATE
    assert [sent["authorization"] for sent in guarded.guard.seen] == ["Bearer valid"] * 4
    assert len(set(guarded.guard.ids)) == 4
    assert all(str(UUID(each, version=4)) == each for each in guarded.guard.ids)


async def test_a_server_that_another_authority_knows_is_not_asked(guarded: Guarded, made: Made, tmp_path: Path) -> None:
    other = make_authority(tmp_path, "other")
    for ca in (other.ca, None):  # neither it nor those that gRPC knows
        client = made(guarded.fake.target, tls=Tls(ca, guarded.tls.certificate, guarded.tls.key), token="valid")
        with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await anext(client.watch_level(5))
    with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
        await client.status()
    assert guarded.guard.seen == []


async def test_without_a_certificate_of_the_authority_nobody_is_let_in(
    guarded: Guarded, made: Made, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    strange = client_tls(make_authority(tmp_path / "elsewhere"))
    for tls in (None, Tls(guarded.tls.ca, strange.certificate, strange.key), Tls(guarded.tls.ca)):
        client = made(guarded.fake.target, tls=tls, token="valid")
        with pytest.raises(ConnectionFailed, match="UNREACHABLE"):
            await anext(client.watch_level(5))
    with pytest.raises(ConnectionFailed, match="UNREACHABLE"):
        await client.status()
    assert guarded.guard.seen == []


@pytest.mark.parametrize("token", ["forged", "", None])
async def test_a_token_that_is_not_accepted_is_an_error_of_its_own(
    guarded: Guarded, made: Made, token: str | None
) -> None:
    client = made(guarded.fake.target, tls=guarded.tls, token=token)

    with pytest.raises(Unauthenticated) as asked:
        await client.status()
    with pytest.raises(Unauthenticated) as watched:
        await anext(client.watch_level(5))
    for each in (asked.value, watched.value):
        assert (each.code, each.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert (each.message, each.is_retryable) == ("Jwt is missing", False)
    assert [asked.value.request_id, watched.value.request_id] == guarded.guard.ids


async def test_an_edge_that_names_requests_itself_has_the_last_word(guarded: Guarded, made: Made) -> None:
    guarded.guard.renamed = "of-the-edge"
    client = made(guarded.fake.target, tls=guarded.tls)

    with pytest.raises(Unauthenticated) as asked:
        await client.status()
    with pytest.raises(Unauthenticated) as watched:
        await anext(client.watch_order_book())
    assert [asked.value.request_id, watched.value.request_id] == ["of-the-edge"] * 2


async def test_a_stream_goes_on_with_a_new_token(guarded: Guarded, made: Made) -> None:
    tokens = iter(["first", "second", "third"])
    guarded.guard.tokens, guarded.fake.answer = {"first"}, None
    client = made(guarded.fake.target, tls=guarded.tls, token=lambda: next(tokens))

    stream = client.watch_level(5)
    assert (await anext(stream)).kind is Kind.STATE
    guarded.guard.tokens = {"second"}
    await asyncio.to_thread(guarded.fake.asked.wait, 5)
    guarded.fake.release(LOST)
    assert (await anext(stream)).kind is Kind.STATE
    assert [sent["authorization"] for sent in guarded.guard.seen] == ["Bearer first", "Bearer second"]
    assert len(set(guarded.guard.ids)) == 2
    # It breaks once more; this time the token that comes is not accepted, and nothing is tried after it.
    with pytest.raises(Unauthenticated) as caught:
        await anext(stream)
    assert len(guarded.guard.seen) == 3
    assert caught.value.request_id == guarded.guard.ids[2]


async def test_a_question_that_is_asked_again_keeps_its_name(guarded: Guarded, made: Made) -> None:
    guarded.fake.answers = [LOST, LOST, pb.GetStatusResponse(symbol="ETHUSDT")]
    assert (await made(guarded.fake.target, tls=guarded.tls, token="valid").status()).symbol == "ETHUSDT"
    assert len(guarded.guard.ids) == 3
    assert len(set(guarded.guard.ids)) == 1


async def test_every_error_has_the_name_of_its_request(fake: Fake, made: Made, nobody: str) -> None:
    fake.answer = refusal(grpc.StatusCode.NOT_FOUND, "LEVEL_UNKNOWN")
    client, alone = made(fake.target), made(nobody)
    names = []
    for ask in (client.status, client.status, alone.status):
        with pytest.raises(ChronobookError) as caught:
            await ask()
        names.append(str(UUID(caught.value.request_id, version=4)))
    assert len(set(names)) == 3


async def test_an_edge_far_away_is_reached(fake: Fake, made: Made) -> None:
    fake.messages = [STATE]
    async with relay(fake.target, delay=0.15) as far:
        assert (await anext(made(far).watch_level(5))).kind is Kind.STATE


async def test_a_stream_whose_server_goes_away_behind_an_edge_goes_on(made: Made) -> None:
    async with resetting(STATE) as edge_of_none:
        stream = made(edge_of_none.address).watch_level(5)
        assert (await anext(stream)).kind is Kind.STATE
        edge_of_none.give_up()
        assert (await anext(stream)).kind is Kind.STATE
    first, second = edge_of_none.asked
    assert not first.HasField("start_update_id")
    assert second.start_update_id == 20
