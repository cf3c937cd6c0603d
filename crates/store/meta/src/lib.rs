//! The index database: images, tags, layers, leases, build cache.
