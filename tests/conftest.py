import os

from hypothesis import settings

import chronobook_server  # noqa: F401 -- before anything imports gRPC, whose settings it makes

# What guards main tries the same examples every time; everybody else's runs go on looking for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
