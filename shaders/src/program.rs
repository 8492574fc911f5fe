//! A kernel with its choices made: which weights it unpacks, how many rows it takes at once.

use crate::{Kernel, SHARED, link};

/// How the weights of a packed matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 4 bits and a 16-bit scale per block of 32.
    Q4,
    /// 8 bits and a 16-bit scale per block of 32.
    Q8,
    /// 16-bit floats.
    F16,
    /// The high halves of 32-bit floats.
    Bf16,
    /// 32-bit floats.
    F32,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Q4, Self::Q8, Self::F16, Self::Bf16, Self::F32];

    /// Its name in manifests and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4 => "q4",
            Self::Q8 => "q8",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// 32-bit words of a block of 32 weights.
    pub const fn block_words(self) -> usize {
        match self {
            Self::Q4 => 4,
            Self::Q8 => 8,
            Self::F16 | Self::Bf16 => 16,
            Self::F32 => 32,
        }
    }

    /// What `#import eights` stands for.
    const fn eights(self) -> &'static str {
        match self {
            Self::Q4 => "q4",
            Self::Q8 => "q8",
            Self::F16 | Self::Bf16 | Self::F32 => "plain",
        }
    }

    /// What `#import scales` stands for.
    const fn scales(self) -> &'static str {
        if self.is_scaled() { "blocks" } else { "none" }
    }

    /// Whether every block has a scale.
    pub const fn is_scaled(self) -> bool {
        matches!(self, Self::Q4 | Self::Q8)
    }
}

/// How the cache stores keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats, two in a word.
    F16,
}

impl KvFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// 32-bit words of a head of `head_dim` numbers.
    pub const fn words(self, head_dim: usize) -> usize {
        match self {
            Self::F32 => head_dim,
            Self::F16 => head_dim / 2,
        }
    }
}

/// How the invocations that share a weight row add up their sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Team {
    /// Through workgroup memory.
    Plain,
    /// Within subgroups first.
    Subgroup,
}

impl Team {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Subgroup];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Subgroup => "subgroup",
        }
    }
}

/// What a product does with its inputs first, where a branch that is not taken costs as much as one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Nothing.
    None,
    /// Divides them by their root mean square.
    Rms,
}

impl Norm {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::None, Self::Rms];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rms => "rms",
        }
    }
}

/// How a workgroup adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// 256 invocations.
    Wide,
    /// Four, for software adapters with subgroups of four.
    Four,
    /// One subgroup of eight, for software adapters that have them.
    Eight,
}

impl Reduce {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Wide, Self::Four, Self::Eight];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Four => "four",
            Self::Eight => "eight",
        }
    }

    /// Invocations of a workgroup.
    pub const fn width(self) -> usize {
        match self {
            Self::Wide => 256,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// How factors of a product wait in workgroup memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// As 32-bit floats.
    F32,
    /// As 16-bit floats, for shaders that have them.
    F16,
}

impl Stage {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

/// Cooperative matrices of 16-bit factors and 32-bit sums: their side, and the invocations of the
/// subgroups that hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// 16 x 16 in subgroups of 32.
    Side16Lanes32,
    /// 8 x 8 in subgroups of 32.
    Side8Lanes32,
    /// 8 x 8 in subgroups of 8.
    Side8Lanes8,
}

impl Fragment {
    /// Every kind, larger ones first.
    pub const ALL: [Self; 3] = [Self::Side16Lanes32, Self::Side8Lanes32, Self::Side8Lanes8];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Side16Lanes32 => "16_32",
            Self::Side8Lanes32 => "8_32",
            Self::Side8Lanes8 => "8_8",
        }
    }

    /// Rows and columns.
    pub const fn side(self) -> u32 {
        match self {
            Self::Side16Lanes32 => 16,
            Self::Side8Lanes32 | Self::Side8Lanes8 => 8,
        }
    }

    /// Invocations of a subgroup.
    pub const fn lanes(self) -> u32 {
        match self {
            Self::Side16Lanes32 | Self::Side8Lanes32 => 32,
            Self::Side8Lanes8 => 8,
        }
    }
}

/// Numbers of rows that share one read of the weights.
pub const ROWS: [usize; 4] = [1, 4, 8, 16];

/// Quads of a head that one invocation of an attention kernel may sum: heads of up to 32, 64, 96
/// and 128 numbers.
pub const PARTS: [usize; 4] = [1, 2, 3, 4];

/// Quads of a head that a lane may hold: heads of up to 16, 32, 64, 96 and 128 numbers.
pub const QUADS: [usize; 5] = [4, 8, 16, 24, 32];

/// What a device compiles: a kernel with its imports chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The kernel.
    pub kernel: Kernel,
    /// What `#import weights` or `#import integers`, of two formats, stands for, and what goes with weights: `eights`, `scales`.
    pub weights: Option<WeightFormat>,
    /// What `#import rows` stands for: 1, 4, 8 or 16.
    pub rows: Option<usize>,
    /// What `#import parts` stands for: 1 to 4.
    pub parts: Option<usize>,
    /// What `#import quads` stands for: one of [`QUADS`].
    pub quads: Option<usize>,
    /// What `#import kv` stands for.
    pub kv: Option<KvFormat>,
    /// What `#import team` stands for.
    pub team: Option<Team>,
    /// What `#import reduce` stands for.
    pub reduce: Option<Reduce>,
    /// What `#import stage` stands for.
    pub stage: Option<Stage>,
    /// What `#import fragment` stands for.
    pub fragment: Option<Fragment>,
    /// What `#import norm` stands for.
    pub norm: Option<Norm>,
}

impl From<Kernel> for Program {
    fn from(kernel: Kernel) -> Self {
        Self {
            kernel,
            weights: None,
            rows: None,
            parts: None,
            quads: None,
            kv: None,
            team: None,
            reduce: None,
            stage: None,
            fragment: None,
            norm: None,
        }
    }
}

impl Program {
    /// Every program there is.
    pub fn all() -> Vec<Self> {
        let choices = |kernel: Kernel| {
            let mut programs = vec![Self::from(kernel)];
            kernel.choose("weights", &WeightFormat::ALL, &mut programs, |p, x| p.weights = Some(x));
            let integers = [WeightFormat::Q4, WeightFormat::Q8];
            kernel.choose("integers", &integers, &mut programs, |p, x| p.weights = Some(x));
            kernel.choose("rows", &ROWS, &mut programs, |p, x| p.rows = Some(x));
            kernel.choose("parts", &PARTS, &mut programs, |p, x| p.parts = Some(x));
            kernel.choose("quads", &QUADS, &mut programs, |p, x| p.quads = Some(x));
            kernel.choose("kv", &KvFormat::ALL, &mut programs, |p, x| p.kv = Some(x));
            kernel.choose("team", &Team::ALL, &mut programs, |p, x| p.team = Some(x));
            kernel.choose("reduce", &Reduce::ALL, &mut programs, |p, x| p.reduce = Some(x));
            kernel.choose("stage", &Stage::ALL, &mut programs, |p, x| p.stage = Some(x));
            kernel.choose("fragment", &Fragment::ALL, &mut programs, |p, x| p.fragment = Some(x));
            kernel.choose("norm", &Norm::ALL, &mut programs, |p, x| p.norm = Some(x));
            programs
        };
        let is_launched = |program: &Self| match program.kernel {
            // Where sums are wide, many workgroups share a row.
            Kernel::Sample => program.reduce != Some(Reduce::Wide),
            // The others have no registers for so many rows.
            Kernel::PackedLinearFew => true,
            _ => program.rows != Some(16),
        };
        Kernel::ALL.iter().copied().flat_map(choices).filter(is_launched).collect()
    }

    /// The name of the file, then the choices.
    pub fn name(&self) -> String {
        let choices = [
            self.weights.map(|w| w.name().to_owned()),
            self.rows.map(|n| n.to_string()),
            self.parts.map(|n| n.to_string()),
            self.quads.map(|n| n.to_string()),
            self.kv.map(|kv| format!("kv_{}", kv.name())),
            self.team.map(|team| team.name().to_owned()),
            self.reduce.map(|reduce| reduce.name().to_owned()),
            self.stage.map(|stage| format!("stage_{}", stage.name())),
            self.fragment.map(|fragment| fragment.name().to_owned()),
            self.norm.map(|norm| format!("norm_{}", norm.name())),
        ];
        let choices = choices.into_iter().flatten().map(|choice| format!("_{choice}"));
        choices.fold(self.kernel.name().to_owned(), |name, choice| name + &choice)
    }

    /// The complete WGSL text.
    ///
    /// # Panics
    /// If a committed file imports an unknown name, which the tests of this crate rule out.
    pub fn source(&self) -> String {
        let file = |name: &str| {
            let known = SHARED.iter().find(|(known, _)| *known == name);
            known.map_or("", |(_, text)| *text)
        };
        let mut shared = SHARED.to_vec();
        let mut stand_in = |import, name: Option<String>| {
            shared.extend(name.map(|name| (import, file(&format!("{import}_{name}")))));
        };
        stand_in("weights", self.weights.map(|w| w.name().to_owned()));
        stand_in("integers", self.weights.map(|w| w.name().to_owned()));
        stand_in("eights", self.weights.map(|w| w.eights().to_owned()));
        stand_in("scales", self.weights.map(|w| w.scales().to_owned()));
        stand_in("rows", self.rows.map(|n| n.to_string()));
        stand_in("parts", self.parts.map(|n| n.to_string()));
        stand_in("quads", self.quads.map(|n| n.to_string()));
        stand_in("kv", self.kv.map(|kv| kv.name().to_owned()));
        stand_in("team", self.team.map(|team| team.name().to_owned()));
        stand_in("reduce", self.reduce.map(|reduce| reduce.name().to_owned()));
        stand_in("stage", self.stage.map(|stage| stage.name().to_owned()));
        stand_in("fragment", self.fragment.map(|fragment| fragment.name().to_owned()));
        stand_in("norm", self.norm.map(|norm| norm.name().to_owned()));
        let linked = link(self.kernel.file(), &shared);
        linked.unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }

    /// Whether it runs only where shaders have subgroups.
    pub fn needs_subgroups(&self) -> bool {
        self.kernel.name().ends_with("_lanes")
            || matches!(
                self.kernel,
                Kernel::AttentionQuads
                    | Kernel::AttentionSplitQuads
                    | Kernel::PackedLinearQuadRow
                    | Kernel::PackedLinearQuads
            )
            || self.team == Some(Team::Subgroup)
            || self.reduce == Some(Reduce::Eight)
            || self.needs_cooperative()
    }

    /// Whether it runs only where shaders have 16-bit floats.
    pub fn needs_f16(&self) -> bool {
        self.stage == Some(Stage::F16) || self.needs_cooperative()
    }

    /// Whether it runs only where subgroups hold matrices, which browsers do not have.
    pub fn needs_cooperative(&self) -> bool {
        self.fragment.is_some()
    }

    /// The lines that a device wants before [`Program::source`]. A browser has subgroups only where
    /// they are enabled, while naga 30 has them always and knows no such line.
    pub fn header(&self, in_browser: bool) -> String {
        let lines = [
            (in_browser && self.needs_subgroups(), "enable subgroups;\n"),
            (self.needs_f16(), "enable f16;\n"),
            (self.needs_cooperative(), "enable wgpu_cooperative_matrix;\n"),
        ];
        lines.into_iter().filter(|(needed, _)| *needed).map(|(_, line)| line).collect()
    }
}

impl Kernel {
    /// Replaces every program by one for each option, if the kernel has that import.
    fn choose<T: Copy>(
        self,
        import: &str,
        options: &[T],
        programs: &mut Vec<Program>,
        set: impl Fn(&mut Program, T),
    ) {
        if !self.imports(import) {
            return;
        }
        let with = |program: Program| options.iter().map(move |option| (program, *option));
        let all = programs.drain(..).flat_map(with).collect::<Vec<_>>();
        programs.extend(all.into_iter().map(|(mut program, option)| {
            set(&mut program, option);
            program
        }));
    }

    fn imports(self, name: &str) -> bool {
        self.file().lines().any(|line| line.strip_prefix("#import ") == Some(name))
    }
}
