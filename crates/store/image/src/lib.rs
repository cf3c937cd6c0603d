//! Images over the store: views, mutations, pull, push, save, load, import, commit.
