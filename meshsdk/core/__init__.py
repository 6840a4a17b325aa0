"""Every decision of the data path, and nothing else.

Rule 1: nothing here waits, opens a socket, reads a clock or uses the global random generator. Time is a float of
seconds on a monotonic clock, chance is a `random.Random`; both are arguments.
Rule 2: a decision is a value that says why (`Retry(after, reason)`, `Final(reason)`), or an error of
`meshsdk.errors` that says why.
Rule 3: what is shared by threads changes only under the cluster's lock, held for a few statements, never across a
callback.
Rule 4: everything taken is given back exactly once, by the call of `Exchange` that ends the attempt.
"""

from __future__ import annotations

__all__: list[str] = []
