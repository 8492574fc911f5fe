// Heads of up to 32 numbers.

const QUADS: u32 = 8u;

alias Row = array<vec4<f32>, QUADS>; // a head, zeros past its width
