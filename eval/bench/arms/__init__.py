"""The arms: one file each, a process of its own that loads its engine once and then runs a repetition whenever it is told."""
