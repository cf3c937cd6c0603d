//! Blobs by digest: begin, write, commit, open verified.
