//! Image references: parse, familiar and canonical form.
