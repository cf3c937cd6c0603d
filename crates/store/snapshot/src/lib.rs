//! Mounted and mountable stacks of layers: overlay.
