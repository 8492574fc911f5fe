// Heads of up to 64 numbers.

const PARTS: u32 = 2u; // quads of a head per invocation
