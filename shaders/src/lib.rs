//! Every WGSL kernel, the table that names them, and the linker.
