// Rows of x that share one read of the weights.

const M: u32 = 16u;
