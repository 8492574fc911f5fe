//! Every kernel validates under browser limits, without a GPU. All failures are reported together.

use globe_shaders::{Kernel, Program, SHARED};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess};

const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
const MAX_LINES: usize = 300;

fn check(program: Program) -> Vec<String> {
    let source = program.header(false) + &program.source();
    let mut capabilities = Capabilities::empty();
    // What a program does not say that it needs, it may not use.
    for (needed, capability) in [
        // unpack2x16float is part of WebGPU; naga counts it as an ability of its own.
        (true, Capabilities::SHADER_FLOAT16_IN_FLOAT32),
        (program.needs_subgroups(), Capabilities::SUBGROUP),
        (program.needs_f16(), Capabilities::SHADER_FLOAT16),
        (program.needs_cooperative(), Capabilities::COOPERATIVE_MATRIX),
    ] {
        capabilities.set(capability, needed);
    }
    let mut parser = naga::front::wgsl::Frontend::new_with_options(naga::front::wgsl::Options {
        parse_doc_comments: false,
        capabilities,
    });
    let module = match parser.parse(&source) {
        Ok(module) => module,
        Err(e) => return vec![e.emit_to_string(&source)],
    };
    let mut faults = Vec::new();
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    match info {
        Ok(info) => check_bindings(&module, &info, &mut faults),
        Err(e) => faults.push(e.emit_to_string(&source)),
    }
    check_limits(&module, &mut faults);
    check_text(&written(program.kernel.name()), &mut faults);
    faults
}

/// Storage is `read_write` (tensors share buffers), the uniform `params` comes last, all are used.
fn check_bindings(module: &Module, info: &naga::valid::ModuleInfo, faults: &mut Vec<String>) {
    let mut bound: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(handle, var)| var.binding.map(|b| (b.binding, handle, var)))
        .collect();
    bound.sort_by_key(|(binding, ..)| *binding);
    let last = bound.len() - 1;
    if last > MAX_STORAGE_BUFFERS {
        faults.push(format!("{last} storage buffers, at most {MAX_STORAGE_BUFFERS}"));
    }
    for (i, (binding, handle, var)) in bound.into_iter().enumerate() {
        let name = var.name.as_deref().unwrap_or("?");
        let expected = if i == last {
            AddressSpace::Uniform
        } else {
            AddressSpace::Storage { access: StorageAccess::LOAD | StorageAccess::STORE }
        };
        if var.space != expected || binding as usize != i {
            faults.push(format!("binding {binding} `{name}`: expected {expected:?} at {i}"));
        }
        if info.get_entry_point(0)[handle].is_empty() {
            faults.push(format!("binding `{name}` is never used, so it leaves the layout"));
        }
    }
}

fn check_limits(module: &Module, faults: &mut Vec<String>) {
    let [entry] = &module.entry_points[..] else {
        return faults.push(format!("{} entry points", module.entry_points.len()));
    };
    if entry.name != "main" {
        faults.push(format!("entry point `{}`", entry.name));
    }
    let invocations: u32 = entry.workgroup_size.iter().product();
    if invocations > MAX_INVOCATIONS {
        faults.push(format!("{invocations} invocations"));
    }
    let bytes: u32 = module
        .global_variables
        .iter()
        .filter(|(_, var)| var.space == AddressSpace::WorkGroup)
        .map(|(_, var)| module.types[var.ty].inner.size(module.to_ctx()))
        .sum();
    if bytes > MAX_WORKGROUP_BYTES {
        faults.push(format!("{bytes} bytes of workgroup memory"));
    }
}

/// The file as people read it.
fn written(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name).with_extension("wgsl");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn check_text(text: &str, faults: &mut Vec<String>) {
    if text.lines().count() > MAX_LINES {
        faults.push(format!("more than {MAX_LINES} lines"));
    }
    for banned in ["enable ", "{{", "}}"] {
        if text
            .lines()
            .any(|l| l.starts_with(banned) || (banned != "enable " && l.contains(banned)))
        {
            faults.push(format!("contains `{banned}`: the host adds headers and fills templates"));
        }
    }
    if !text.starts_with("// ") {
        faults.push("does not open with its formula".into());
    }
}

#[test]
fn every_kernel_validates_under_browser_limits() {
    let faults: Vec<String> = Program::all()
        .into_iter()
        .flat_map(|p| check(p).into_iter().map(move |f| format!("{}: {f}", p.name())))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_is_in_the_table() {
    let folder = env!("CARGO_MANIFEST_DIR");
    for (sub, known) in [
        ("", Kernel::ALL.iter().map(|k| k.name()).collect::<Vec<_>>()),
        ("shared", SHARED.iter().map(|(name, _)| *name).collect()),
    ] {
        let files = std::fs::read_dir(std::path::Path::new(folder).join(sub)).unwrap();
        for path in files.map(|f| f.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "wgsl") {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                assert!(known.contains(&name.as_str()), "{name}.wgsl is in no table");
            }
        }
    }
}

/// What is compiled into a program is the code of its files, each with its first line.
#[test]
fn only_comments_and_indentation_are_left_out() {
    let code = |text: &str| {
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let kernels = Kernel::ALL.iter().map(|kernel| (kernel.name().to_owned(), kernel.file()));
    let shared = SHARED.iter().map(|&(name, text)| (format!("shared/{name}"), text));
    for (name, text) in kernels.chain(shared) {
        let written = written(&name);
        assert_eq!(code(text), code(&written), "{name}");
        assert_eq!(text.lines().next(), written.lines().next(), "{name}");
        let comments = text.lines().skip(1).filter(|line| line.contains("//"));
        assert_eq!(comments.count(), 0, "{name}");
    }
}

/// Chromium 156 zeroes a variable without an initialiser once, not in each round of the loop it stands in.
#[test]
fn every_variable_in_a_loop_has_an_initialiser() {
    let mut bare = Vec::new();
    let kernels = Kernel::ALL.iter().map(|kernel| (kernel.name(), kernel.file()));
    for (name, text) in kernels.chain(SHARED.iter().copied()) {
        let mut blocks = Vec::new(); // whether each open one is a loop
        for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
            if line.starts_with("var ") && !line.contains('=') && blocks.contains(&true) {
                bare.push(format!("{name}: {line}"));
            }
            if line.starts_with('}') {
                blocks.pop();
            }
            if line.ends_with('{') {
                blocks.push(["for ", "while ", "loop "].iter().any(|word| line.starts_with(word)));
            }
        }
        assert!(blocks.is_empty(), "{name}: {} blocks stay open", blocks.len());
    }
    assert!(bare.is_empty(), "{}", bare.join("\n"));
}
