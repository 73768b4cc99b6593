"""Where data sets come from: each source is a module with a function that returns a `reading.OpenedSet`."""
