// Cooperative matrices of 16 x 16, subgroups of 32.

const SIDE: u32 = 16u;
const LANES: u32 = 32u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
