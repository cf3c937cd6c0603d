//! Dockerfile text to a tree with spans: pure.
