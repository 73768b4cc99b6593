"""Any Keras model, read from outside.

Modules:

    calls       the recorded calls of a functional model
    outline     the calls of a functional model as plain data
    rewrite     copies of functional models with layers replaced, removed or inlined
    agreement   whether a copy of a model computes the same
    inputs      inputs and labels in the forms that users pass
    taps        every activation of any model, observed in a real forward pass
    hooks       the functions of Keras and its backends that are patched for the taps
    trace       tracing a forward pass without changing the model
    audit       activations in a traced program that no tap observed
"""

# The first import of Keras imports bnhead.layers too (`bnhead/__init__.py`), perhaps before the names below
# exist: at import, those layers read modules of this package only.
from bnhead import public
from bnhead.graph.agreement import require_agreement
from bnhead.graph.calls import Call, flat_inputs, functional, model_calls, nested, require_keras
from bnhead.graph.rewrite import (
    Flat,
    clone_layer,
    copy,
    copy_state,
    flattened,
    free_name,
    inlined,
    new_inputs,
    replay,
    used_inputs,
)

__all__ = [
    "Call",
    "Flat",
    "clone_layer",
    "copy",
    "copy_state",
    "flat_inputs",
    "flattened",
    "free_name",
    "functional",
    "inlined",
    "model_calls",
    "nested",
    "new_inputs",
    "replay",
    "require_agreement",
    "require_keras",
    "used_inputs",
]
__getattr__, __dir__ = public.names(__name__, {})
