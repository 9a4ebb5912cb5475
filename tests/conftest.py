import asyncio
import os
import signal
from collections.abc import Callable, Mapping

import uvloop
from hypothesis import Phase, settings

import chronobook_server  # noqa: F401 -- before anything imports gRPC, whose settings it makes

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
