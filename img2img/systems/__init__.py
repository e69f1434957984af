"""Who plays against whom: one file per shape of data."""
