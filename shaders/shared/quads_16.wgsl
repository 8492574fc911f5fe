// Heads of up to 64 numbers.

const QUADS: u32 = 16u;

alias Row = array<vec4<f32>, QUADS>; // a head, zeros past its width
