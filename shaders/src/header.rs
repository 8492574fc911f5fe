//! Lines that a browser wants before a program and naga refuses.

/// What a browser needs in front of `source`: it has subgroups only where they are enabled, while
/// naga 30 has them always and knows no such line.
pub fn web_header(source: &str) -> &'static str {
    if calls_subgroups(source) { "enable subgroups;\n" } else { "" }
}

/// Whether a built-in function or value of subgroups is used: comments may name them, in words.
fn calls_subgroups(source: &str) -> bool {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|word| {
        let rest = word.strip_prefix("subgroup").or(word.strip_prefix("quad"));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c == '_' || c.is_uppercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Program;

    #[test]
    fn only_programs_with_subgroups_enable_them() {
        for (source, wanted) in [
            ("let y = subgroupAdd(x);", true),
            ("@builtin(subgroup_invocation_id) lane: u32,", true),
            ("let y = quadBroadcast(x, 0u);", true),
            ("// subgroupAdd would do\nlet quads = 4u; let subgroups = 1u;", false),
        ] {
            assert_eq!(!web_header(source).is_empty(), wanted, "{source}");
        }
        let with = |p: &Program| !web_header(&p.source()).is_empty();
        let (some, others): (Vec<_>, Vec<_>) = Program::all().into_iter().partition(with);
        assert!(some.iter().all(Program::needs_subgroups));
        assert!(!others.iter().any(Program::needs_subgroups));
    }
}
