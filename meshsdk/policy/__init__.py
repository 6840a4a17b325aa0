"""What operators write and what the core is given: documents, their rules, their merge into one `Plan`.

Rule 1: nothing here waits, opens a file, reads a clock or the environment. Text comes in, a plan or all mistakes go
out.
Rule 2: one section of a document is one module of one shape: a model whose field descriptions are the user's
documentation, `plan()` into the core's dataclass and `dump()` back into text.
Rule 3: a document is good as a whole or refused as a whole, with every mistake, its path and what to write instead.
Rule 4: what is not enforced is refused (`refused.py` has the names); an operator may trust what was accepted.
Rule 5: later wins: built-in defaults, `_mesh`, the service's document, its `from` section for the caller.

A document's way: `reading` (text to plain values) → `mistakes` (values against the models of `sections`) → `bounds`
(values against each other) → `document.Document` → `effective` (merge) → `meshsdk.core.plan.Plan`.
"""

from __future__ import annotations

__all__: list[str] = []
