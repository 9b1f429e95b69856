//! How an image is to run, from the command line.

use super::commands::convert::Convert;
use super::options::{ConfigOptions, RootOptions};
use super::values::{label, usage};
use crate::error::{Result, ResultExt as _};
use crate::model::ConfigChanges;

/// What is to be different in the image's config. Labels of an image are a part of it; those of a SIF are not.
pub(super) fn changes(is_image: bool, arguments: &Convert) -> Result<ConfigChanges> {
    let ConfigOptions { entrypoint, cmd, env, user, .. } = &arguments.config;
    let words = |option: &str, text: &Option<String>| {
        text.as_deref().map(ConfigChanges::words).transpose().doing(|| format!("option {option}"))
    };
    let labels = arguments.root.label.iter().filter(|_| is_image).map(|text| label(text));
    Ok(ConfigChanges {
        entrypoint: words("--entrypoint", entrypoint)?,
        cmd: words("--cmd", cmd)?,
        env: env.iter().map(|text| variable(text)).collect::<Result<_>>()?,
        workdir: workdir(&arguments.root)?,
        user: user.clone(),
        labels: labels.collect::<Result<_>>()?,
    })
}

fn workdir(root: &RootOptions) -> Result<Option<String>> {
    match root.workdir.as_deref() {
        None | Some("") => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(path.to_string())),
        Some(path) => Err(usage(
            format!("option --workdir: {path:?} is not an absolute path"),
            "write a path inside the image, such as --workdir=/work",
        )),
    }
}

fn variable(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(usage(format!("option --env: {text:?} is not a variable"), "write NAME=VALUE")),
    }
}
