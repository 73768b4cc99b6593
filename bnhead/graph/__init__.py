"""A Keras model, read from outside.

functional  reading and copying the recorded graph of a functional model
agreement   whether a copy of a model computes what the model computes
taps        seeing every activation of any model while a real forward pass runs
hooks       where Keras and its backends are hooked for that
trace       tracing a forward pass that leaves nothing in the model
audit       what the taps did not see, found in the traced program
"""

from bnhead.graph.agreement import require_agreement
from bnhead.graph.functional import (
    Call,
    Flat,
    calls,
    copy,
    copy_state,
    flat_inputs,
    flattened,
    free_name,
    functional,
    inlined,
    nested,
    new_inputs,
    replay,
    require_keras,
    same,
    used_inputs,
)

__all__ = [
    "Call",
    "Flat",
    "calls",
    "copy",
    "copy_state",
    "flat_inputs",
    "flattened",
    "free_name",
    "functional",
    "inlined",
    "nested",
    "new_inputs",
    "replay",
    "require_agreement",
    "require_keras",
    "same",
    "used_inputs",
]
