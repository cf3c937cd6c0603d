//! Build graph, cache keys and step execution.
