//! The only way into a root file system, volume or build context: resolution by file descriptor.
