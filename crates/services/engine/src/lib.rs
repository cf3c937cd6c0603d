//! Runs things on this host: the one place that wires stores, runtime, network and builder.
