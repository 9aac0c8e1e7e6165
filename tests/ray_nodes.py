"""Ray's nodes on a machine on which much else runs; after one call they start without waiting for what is slow there.

A node ends by itself where its agent for the dashboard has not said within 15 s on which ports it listens. Here the agent is one
without a dashboard, which listens on none, and that is said before the node starts.
"""

from __future__ import annotations

import socket
from typing import Any


def wait_for_no_agent() -> None:
    """For all nodes that this process starts."""
    from ray import _raylet
    from ray._private import services, utils

    utils.get_dashboard_dependency_error = lambda: ImportError("left out")
    start = services.start_raylet
    silent = (
        _raylet.METRICS_AGENT_PORT_NAME, _raylet.METRICS_EXPORT_PORT_NAME, _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    )  # fmt: skip

    def start_raylet(*given: Any, **named: Any) -> Any:
        node, folder = given[2], given[11]
        for name in silent:
            _raylet.persist_port(folder, node, name, -1)
        with socket.create_server(("", 0)) as free:
            named["runtime_env_agent_port"] = free.getsockname()[1]
        return start(*given, **named)

    services.start_raylet = start_raylet


__all__ = ["wait_for_no_agent"]
