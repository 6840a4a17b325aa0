"""The dev agent: the part of Consul's HTTP API that this package uses, in memory, for laptops and tests."""

from __future__ import annotations

from meshsdk_registry.agent.server import AgentThread, DevAgent, running_agent

__all__ = ["AgentThread", "DevAgent", "running_agent"]
