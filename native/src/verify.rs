//! `globe verify`.

use anyhow::Context;
use globe_format::packed::verify;
use globe_format::{Error, Folder};

use crate::args::VerifyArgs;
use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};
use crate::inspect::bytes;
use crate::intact::{self, Unchecked};
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Checks a packed folder.
pub fn run(args: &VerifyArgs) -> Result<Exit, Fail> {
    let interrupt = Interrupt::install()?;
    interrupt.begin_work();
    let folder = Folder::open(&args.folder).or_usage()?;
    let unchecked = Unchecked::of(&args.folder); // as it stands before the first byte is read
    let progress = Progress::bytes("checking", args.quiet);
    let mut on_bytes = |done: u64, all: u64| {
        progress.set(done as usize, all as usize);
        !interrupt.cancel().is_cancelled()
    };
    let manifest = pollster::block_on(verify(&folder, &mut on_bytes));
    progress.clear();
    if matches!(manifest, Err(Error::Cancelled)) {
        return Ok(Exit::Interrupted);
    }
    if manifest.is_err() {
        intact::forget(&args.folder);
    }
    let context = || args.folder.display().to_string();
    let manifest = manifest.with_context(context).or_usage()?;
    if let Some(unchecked) = unchecked {
        unchecked.keep();
    }
    let line = format!(
        "{}: {} in {} files, every one is intact\n",
        args.folder.display(),
        bytes(manifest.total_bytes),
        manifest.shards.len() + manifest.files.len(),
    );
    print(&line).context("cannot write to standard output")?;
    Ok(Exit::Success)
}
