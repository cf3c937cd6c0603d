//! Keys, all forms, and what an attacker would try with each.

mod containers;
mod cose;
mod fixture;
mod forms;
mod hostile;
mod keyless;
mod keys;
