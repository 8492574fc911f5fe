// Heads of up to 96 numbers.

const PARTS: u32 = 3u; // quads of a head per invocation
