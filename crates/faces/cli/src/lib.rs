//! Arguments, rendering, exit codes: docker's manners for Dhow's engine.
