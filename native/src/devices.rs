//! `globe devices`.

use anyhow::Context;
use globe_ops::{
    Adapter, DeviceChoice, Fragment, Reduce, Replay, Variant, adapters, open_device,
    reduce_choices, reduce_of,
};
use serde::Serialize;

use crate::args::DevicesArgs;
use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};

/// What this machine can compute with.
#[derive(Serialize)]
struct Devices<'a> {
    adapters: Vec<AdapterView<'a>>,
    /// Name of the adapter that `auto` takes.
    auto: &'a str,
}

/// An adapter under documented names.
#[derive(Serialize)]
struct AdapterView<'a> {
    name: &'a str,
    api: &'a str,
    driver: &'a str,
    software: bool,
    /// What a program may take of its own memory, where that is known.
    memory_bytes: Option<u64>,
    max_binding_bytes: u64,
    f16: bool,
    subgroups: bool,
    timestamps: bool,
    /// Side of the matrices that subgroups hold, for the variant `cooperative`.
    cooperative_matrices: Option<u32>,
    /// Fewest and most invocations of a subgroup.
    subgroup_size: (u32, u32),
    /// Kernels that multiply by packed matrices.
    linear: &'static str,
    /// Kernels that `GLOBE_LINEAR` can ask for.
    linear_choices: Vec<&'static str>,
    /// What hands recorded steps to the device.
    replay: &'static str,
    /// What `GLOBE_REPLAY` can ask for.
    replay_choices: Vec<&'static str>,
    /// How workgroups add up.
    reduce: &'static str,
    /// What `GLOBE_REDUCE` can ask for.
    reduce_choices: Vec<&'static str>,
}

impl<'a> From<&'a Adapter> for AdapterView<'a> {
    fn from(adapter: &'a Adapter) -> Self {
        Self {
            name: &adapter.name,
            api: &adapter.api,
            driver: &adapter.driver,
            software: adapter.software,
            memory_bytes: adapter.memory_bytes,
            max_binding_bytes: adapter.max_binding_bytes,
            f16: adapter.features.f16,
            subgroups: adapter.features.subgroups,
            timestamps: adapter.features.timestamps,
            cooperative_matrices: adapter.fragment.map(Fragment::side),
            subgroup_size: adapter.subgroup_size,
            linear: adapter.variant().name(),
            linear_choices: adapter.variants().map(Variant::name).collect(),
            replay: Replay::of(adapter).unwrap_or(Replay::Wgpu).name(),
            replay_choices: Replay::choices(adapter).iter().map(|replay| replay.name()).collect(),
            reduce: reduce_of(adapter).unwrap_or(Reduce::Wide).name(),
            reduce_choices: reduce_choices(adapter).iter().map(|reduce| reduce.name()).collect(),
        }
    }
}

/// Lists adapters.
pub fn run(args: &DevicesArgs) -> Result<Exit, Fail> {
    let adapters = pollster::block_on(adapters());
    // Opened rather than guessed: an adapter that is listed may still fail.
    let auto = pollster::block_on(open_device(DeviceChoice::Auto)).or_usage()?;
    let devices =
        Devices { adapters: adapters.iter().map(AdapterView::from).collect(), auto: &auto.name };
    let document = match args.json {
        true => serde_json::to_string_pretty(&devices)? + "\n",
        false => text(&devices),
    };
    print(&document).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

fn text(devices: &Devices) -> String {
    let mut text: String = devices.adapters.iter().map(adapter).collect();
    if devices.adapters.is_empty() {
        text += "no GPU adapter found; on Debian, mesa-vulkan-drivers brings a software one\n";
    }
    format!("{text}--device auto takes: {}\n", devices.auto)
}

fn adapter(adapter: &AdapterView) -> String {
    let kind = if adapter.software { "software" } else { "hardware" };
    let abilities = [
        (adapter.f16, "f16"),
        (adapter.subgroups, "subgroups"),
        (adapter.timestamps, "timestamps"),
        (adapter.cooperative_matrices.is_some(), "cooperative matrices"),
    ];
    let present: Vec<&str> =
        abilities.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    let features = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
    let binding = adapter.max_binding_bytes >> 20;
    let memory = adapter
        .memory_bytes
        .map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MiB free", bytes >> 20));
    format!(
        "{}\n  api       {} ({kind})\n  driver    {}\n  features  {features}\n  memory    {memory}\n  binding   at most {binding} MiB per buffer\n  kernels   {}, of {} (GLOBE_LINEAR forces one)\n  replay    {}, of {} (GLOBE_REPLAY forces one)\n  sums      {}, of {} (GLOBE_REDUCE forces one)\n",
        adapter.name,
        adapter.api,
        adapter.driver,
        adapter.linear,
        adapter.linear_choices.join(", "),
        adapter.replay,
        adapter.replay_choices.join(", "),
        adapter.reduce,
        adapter.reduce_choices.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_described_in_words() {
        let adapter = AdapterView {
            name: "Some GPU",
            api: "vulkan",
            driver: "mesa 25",
            software: true,
            memory_bytes: Some(2 << 30),
            max_binding_bytes: 128 << 20,
            f16: true,
            subgroups: false,
            timestamps: true,
            cooperative_matrices: Some(16),
            subgroup_size: (8, 8),
            linear: "teams",
            linear_choices: vec!["subgroups", "teams"],
            replay: "vulkan",
            replay_choices: vec!["vulkan", "wgpu"],
            reduce: "eight",
            reduce_choices: vec!["eight", "wide"],
        };
        let devices = Devices { adapters: vec![adapter], auto: "Some GPU" };
        let expected = "\
Some GPU
  api       vulkan (software)
  driver    mesa 25
  features  f16, timestamps, cooperative matrices
  memory    2048 MiB free
  binding   at most 128 MiB per buffer
  kernels   teams, of subgroups, teams (GLOBE_LINEAR forces one)
  replay    vulkan, of vulkan, wgpu (GLOBE_REPLAY forces one)
  sums      eight, of eight, wide (GLOBE_REDUCE forces one)
--device auto takes: Some GPU
";
        assert_eq!(text(&devices), expected);
    }

    #[test]
    fn without_adapters_it_says_what_to_install() {
        let devices = Devices { adapters: vec![], auto: "cpu" };
        assert!(text(&devices).contains("mesa-vulkan-drivers"));
    }
}
