// Heads of up to 128 numbers.

const PARTS: u32 = 4u; // quads of a head per invocation
