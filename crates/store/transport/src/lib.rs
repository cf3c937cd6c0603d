//! Registry client: resolve, fetch, push, authenticate; blocking face over an asynchronous core.
