//! Base file systems straight from distribution packages, verified to the archive key.
