//! Model files: configuration, blocks, caches.
