//! For tests only: a tiny image maker, a fake registry, a sandbox.
