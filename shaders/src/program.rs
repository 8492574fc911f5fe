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

/// Numbers of rows that share one read of the weights.
pub const ROWS: [usize; 3] = [1, 4, 8];

/// Quads of a head that one invocation of an attention kernel may sum: heads of up to 32, 64, 96
/// and 128 numbers.
pub const PARTS: [usize; 4] = [1, 2, 3, 4];

/// What a device compiles: a kernel with its imports chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The kernel.
    pub kernel: Kernel,
    /// What `#import weights` stands for.
    pub weights: Option<WeightFormat>,
    /// What `#import rows` stands for: 1, 4 or 8.
    pub rows: Option<usize>,
    /// What `#import parts` stands for: 1 to 4.
    pub parts: Option<usize>,
    /// What `#import kv` stands for.
    pub kv: Option<KvFormat>,
    /// What `#import team` stands for.
    pub team: Option<Team>,
}

impl From<Kernel> for Program {
    fn from(kernel: Kernel) -> Self {
        Self { kernel, weights: None, rows: None, parts: None, kv: None, team: None }
    }
}

impl Program {
    /// Every program there is.
    pub fn all() -> Vec<Self> {
        let choices = |kernel: Kernel| {
            let mut programs = vec![Self::from(kernel)];
            kernel.choose("weights", &WeightFormat::ALL, &mut programs, |p, x| p.weights = Some(x));
            kernel.choose("rows", &ROWS, &mut programs, |p, x| p.rows = Some(x));
            kernel.choose("parts", &PARTS, &mut programs, |p, x| p.parts = Some(x));
            kernel.choose("kv", &KvFormat::ALL, &mut programs, |p, x| p.kv = Some(x));
            kernel.choose("team", &Team::ALL, &mut programs, |p, x| p.team = Some(x));
            programs
        };
        Kernel::ALL.iter().copied().flat_map(choices).collect()
    }

    /// The name of the file, then the choices.
    pub fn name(&self) -> String {
        let choices = [
            self.weights.map(|w| w.name().to_owned()),
            self.rows.map(|n| n.to_string()),
            self.parts.map(|n| n.to_string()),
            self.kv.map(|kv| format!("kv_{}", kv.name())),
            self.team.map(|team| team.name().to_owned()),
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
        stand_in("rows", self.rows.map(|n| n.to_string()));
        stand_in("parts", self.parts.map(|n| n.to_string()));
        stand_in("kv", self.kv.map(|kv| kv.name().to_owned()));
        stand_in("team", self.team.map(|team| team.name().to_owned()));
        let linked = link(self.kernel.file(), &shared);
        linked.unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }

    /// Whether it runs only where shaders have subgroups.
    pub fn needs_subgroups(&self) -> bool {
        self.kernel == Kernel::PackedLinearLanes || self.team == Some(Team::Subgroup)
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
