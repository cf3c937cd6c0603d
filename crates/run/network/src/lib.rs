//! Bridges, veth pairs, address leases, nf_tables rules, container DNS.
