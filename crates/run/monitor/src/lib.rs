//! The one small process beside each container: stdio, log, exit status, health, restart.
