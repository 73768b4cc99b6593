"""Offline census: `bnhead inspect MODEL_OR_RUN`.

`request` says what is asked for, `source` opens the model and the data, `tables` and `page` write what was
counted, `command` does it all.
"""
