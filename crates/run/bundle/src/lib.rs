//! Image config and a create request to a runtime spec: a pure function.
