//! Serves images to others: the OCI distribution API over files and SQLite.
