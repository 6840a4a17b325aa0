"""Callers in the mesh reach gunicorn over mutual TLS; others in clear text, unless the policy is strict."""

from meshsdk.server.gunicorn import *  # noqa: F403
