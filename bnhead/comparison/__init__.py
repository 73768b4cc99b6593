"""A study of a user's own models and data, in the calling process: `bnhead.compare`."""
