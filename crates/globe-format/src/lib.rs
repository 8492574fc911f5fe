//! Bytes to typed views: safetensors files and their index.
