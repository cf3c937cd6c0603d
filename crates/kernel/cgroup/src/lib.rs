//! Control groups, version 1 and 2: create, limit, read, freeze, kill, delete.
