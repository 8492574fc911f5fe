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
}

impl From<Kernel> for Program {
    fn from(kernel: Kernel) -> Self {
        Self { kernel, weights: None, rows: None, parts: None }
    }
}

impl Program {
    /// Every program there is.
    pub fn all() -> Vec<Self> {
        let choices = |kernel: Kernel| {
            let numbers = |name: &str, of: &[usize]| -> Vec<Option<usize>> {
                match kernel.imports(name) {
                    true => of.iter().copied().map(Some).collect(),
                    false => vec![None],
                }
            };
            let weights: Vec<_> = match kernel.imports("weights") {
                true => WeightFormat::ALL.into_iter().map(Some).collect(),
                false => vec![None],
            };
            let (rows, parts) = (numbers("rows", &ROWS), numbers("parts", &PARTS));
            let mut programs = Vec::new();
            for weights in weights {
                for &rows in &rows {
                    let with = |&parts: &Option<usize>| Self { kernel, weights, rows, parts };
                    programs.extend(parts.iter().map(with));
                }
            }
            programs
        };
        Kernel::ALL.iter().copied().flat_map(choices).collect()
    }

    /// The name of the file, then the choices.
    pub fn name(&self) -> String {
        let weights = self.weights.map_or(String::new(), |w| format!("_{}", w.name()));
        let rows = self.rows.map_or(String::new(), |n| format!("_{n}"));
        let parts = self.parts.map_or(String::new(), |n| format!("_{n}"));
        format!("{}{weights}{rows}{parts}", self.kernel.name())
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
        if let Some(weights) = self.weights {
            shared.push(("weights", file(&format!("weights_{}", weights.name()))));
        }
        if let Some(rows) = self.rows {
            shared.push(("rows", file(&format!("rows_{rows}"))));
        }
        if let Some(parts) = self.parts {
            shared.push(("parts", file(&format!("parts_{parts}"))));
        }
        let linked = link(self.kernel.file(), &shared);
        linked.unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }
}

impl Kernel {
    /// Whether it can run only where subgroups are exactly this wide.
    pub const fn subgroup_size(self) -> Option<u32> {
        match self {
            Self::PackedLinearLanes => Some(8),
            _ => None,
        }
    }

    fn imports(self, name: &str) -> bool {
        self.file().lines().any(|line| line.strip_prefix("#import ") == Some(name))
    }
}
