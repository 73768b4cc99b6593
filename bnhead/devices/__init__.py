"""The devices and processes that a run computes on."""
