//! `globe data`.

use globe_geo::Gazetteer;
use globe_train::data::check;

use crate::args::{DataArgs, DataCommand};
use crate::console::print;
use crate::exit::{Exit, Fail, OrUsage};

/// Does what was asked with training data.
pub fn run(args: &DataArgs) -> Result<Exit, Fail> {
    let DataCommand::Check { path, images } = &args.command;
    let gazetteer = Gazetteer::full()?;
    let found = check(path, images.as_deref(), &gazetteer).or_usage()?;
    print(&found.to_string())?;
    Ok(if found.is_clean() { Exit::Success } else { Exit::ImageFailed })
}
