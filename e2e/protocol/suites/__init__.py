"""The suites, one module each, with `install(tools)` and `run(needs, gateway) -> Outcome`."""

import importlib

ORDER = ["h2spec", "websocket", "grpc", "tls", "clients", "smuggling"]


def load(name):
    """The module of a suite."""
    return importlib.import_module(f"suites.{name}")
