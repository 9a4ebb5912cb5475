import os

from hypothesis import settings

# What guards main tries the same examples every time; everybody else's runs go on looking for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
