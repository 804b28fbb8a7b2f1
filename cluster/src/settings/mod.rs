//! Settings of a binary: one table of keys, read from a TOML file, the environment and the command line.
