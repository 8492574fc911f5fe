// Heads of up to 16 numbers.

const QUADS: u32 = 4u;

alias Row = array<vec4<f32>, QUADS>; // a head, zeros past its width
