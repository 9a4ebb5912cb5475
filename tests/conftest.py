import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import Phase, settings

import chronobook_server  # noqa: F401 -- before anything imports gRPC, whose settings it makes
from chronobook_server.kernel import CHOICE
from testkit.harness.paths import PATHS, on_path

# A shell starts a job in the background with SIGINT ignored. Commands that tests end with Ctrl+C would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# CI on main tries the same examples every time; all other runs look for new ones. Examples have no deadline, because
# machines are shared.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("everybody", deadline=None)
# tools/mutation.py needs the same answer every time, and no short example of a failure.
settings.register_profile(
    "mutation", derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(os.environ.get("TEST_PROFILE") or ("ci" if os.environ.get("CI") else "everybody"))


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asynchronous test on the loop that the commands run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module", params=PATHS)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the tests of a module on the compiled path and on the Python path."""
    if request.param == "compiled" and not CHOICE.is_there:
        pytest.skip("the compiled kernel is not built: `python tools/kernel.py` says why")
    with on_path(request.param):
        yield request.param
