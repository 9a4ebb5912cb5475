import asyncio
import os
from collections.abc import Callable, Mapping

import uvloop
from hypothesis import Phase, settings

import chronobook_server  # noqa: F401 -- before anything imports gRPC, whose settings it makes

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
