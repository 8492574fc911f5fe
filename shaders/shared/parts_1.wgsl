// Heads of up to 32 numbers.

const PARTS: u32 = 1u; // quads of a head per invocation
